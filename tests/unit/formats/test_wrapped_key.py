import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.errors import InvalidRequest, WrappedKeyRejected
from keycustody.formats.wrapped_key import binding, join, split

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
versions = st.integers(1, 2**32 - 1)
hashes = st.binary(min_size=32, max_size=32)
kws = st.binary(min_size=40, max_size=40)
bound = st.tuples(names, versions, hashes, kws)

Bound = tuple[str, int, bytes, bytes]


@given(bound, bound)
def test_different_inputs_have_different_bindings(one: Bound, other: Bound) -> None:
    assert (binding(1, *one) == binding(1, *other)) == (one == other)


def test_a_binding_as_the_specification_writes_it() -> None:
    assert binding(1, "ab", 258, b"h" * 32, b"k" * 40) == (
        b"keycustody.wrapped-key.v1\0\0\1\0\2ab\0\0\1\2" + b"h" * 32 + b"k" * 40
    )


@pytest.mark.parametrize(
    ("suite", "name", "version", "hash_length", "kw_length"),
    [
        (0, "a", 1, 32, 40),
        (2, "a", 1, 32, 40),
        (1 << 16, "a", 1, 32, 40),
        (1, "A", 1, 32, 40),
        (1, "a", 0, 32, 40),
        (1, "a", 1 << 32, 32, 40),
        (1, "a", 1, 31, 40),
        (1, "a", 1, 33, 40),
        (1, "a", 1, 32, 39),
        (1, "a", 1, 32, 41),
        (1, "a", 1, 33, 39),
    ],
)
def test_no_binding_of_what_cannot_be(
    suite: int, name: str, version: int, hash_length: int, kw_length: int
) -> None:
    with pytest.raises(InvalidRequest):
        binding(suite, name, version, bytes(hash_length), bytes(kw_length))


@pytest.mark.parametrize(
    ("kw_length", "tag_length"),
    [(39, 33), (41, 31), (40, 31), (40, 33), (39, 32), (41, 32), (0, 0)],
)
def test_only_a_kw_and_a_tag_are_joined(kw_length: int, tag_length: int) -> None:
    with pytest.raises(InvalidRequest):
        join(bytes(kw_length), bytes(tag_length))


@given(st.binary(min_size=72, max_size=72))
def test_split_and_join(wrapped: bytes) -> None:
    kw, tag = split(wrapped)
    assert (len(kw), len(tag)) == (40, 32)
    assert join(kw, tag) == wrapped


@pytest.mark.parametrize("length", [0, 40, 71, 73, 144])
def test_a_wrapped_key_of_another_length(length: int) -> None:
    with pytest.raises(WrappedKeyRejected):
        split(bytes(length))
