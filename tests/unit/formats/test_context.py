from collections.abc import Iterator, Mapping
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keycustody.errors import InvalidContext, MalformedEnvelope
from keycustody.formats import context

# No surrogates: UTF-8 cannot carry them. No U+0000: a context may not.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=32)
contexts = st.dictionaries(text.filter(bool), text, max_size=12)


@given(contexts)
def test_round_trip(pairs: dict[str, str]) -> None:
    encoded = context.encode(pairs)
    decoded = context.decode(encoded)
    assert decoded == pairs
    assert list(decoded) == sorted(pairs, key=str.encode)


@given(contexts, st.randoms())
def test_order_does_not_matter(pairs: dict[str, str], random: Random) -> None:
    items = list(pairs.items())
    random.shuffle(items)
    assert context.encode(dict(items)) == context.encode(pairs)


@given(contexts, contexts)
def test_different_contexts_have_different_encodings(
    one: dict[str, str], other: dict[str, str]
) -> None:
    assert (context.encode(one) == context.encode(other)) == (one == other)


def accepted(data: bytes) -> bool:
    """Is it decoded? If so, then to what encodes to exactly that."""
    try:
        pairs = context.decode(data)
    except MalformedEnvelope:
        return False
    assert context.encode(pairs) == data
    return True


@given(st.binary(max_size=64))
@example(b"\0\0")
@example(b"\0\1\0\1a\0\1b")
def test_what_is_decoded_encodes_to_itself(data: bytes) -> None:
    accepted(data)


@given(contexts, st.binary(min_size=1, max_size=8))
def test_no_bytes_may_follow(pairs: dict[str, str], extra: bytes) -> None:
    assert not accepted(context.encode(pairs) + extra)


def test_every_edit_is_refused_or_another_context() -> None:
    good = context.encode({"a": "1", "bc": "", "d\u00e9": "\u20ac\U0001f512"})
    for index in range(len(good)):
        for value in set(range(256)) - {good[index]}:
            accepted(good[:index] + bytes([value]) + good[index + 1 :])


def test_every_truncation_is_refused() -> None:
    good = context.encode({"a": "1", "bc": "", "d\u00e9": "\u20ac"})
    assert not any(accepted(good[:length]) for length in range(len(good)))


# -- limits, on both sides of each -----------------------------------------------------------------


def numbered(count: int) -> dict[str, str]:
    return {f"{index:03}": "" for index in range(count)}


def of_length(length: int) -> dict[str, str]:
    """A context whose encoding has about 7 KiB and up: `length` bytes."""
    filler = {f"{index:02}": "v" * 1024 for index in range(7)}
    room = length - len(context.encode({**filler, "last": ""}))
    return {**filler, "last": "v" * room}


WITHIN = {
    "63 pairs": numbered(63),
    "64 pairs": numbered(64),
    "a key of 127": {"k" * 127: ""},
    "a key of 128": {"k" * 128: ""},
    "a key of 128 in 64 characters": {"\u00e9" * 64: ""},
    "a value of 1,023": {"k": "v" * 1023},
    "a value of 1,024": {"k": "v" * 1024},
    "a value of 1,024 in 256 characters": {"k": "\U0001f512" * 256},
    "8,191 bytes": of_length(8191),
    "8,192 bytes": of_length(8192),
}
BEYOND = {
    "65 pairs": numbered(65),
    "10,000 pairs": numbered(10_000),
    "an empty key": {"": "v"},
    "a key of 129": {"k" * 129: ""},
    "a key of 130 in 65 characters": {"\u00e9" * 65: ""},
    "a value of 1,025": {"k": "v" * 1025},
    "a value of 1,028 in 257 characters": {"k": "\U0001f512" * 257},
    "8,193 bytes": of_length(8193),
    "U+0000 in a key": {"a\0": "v"},
    "U+0000 in a value": {"a": "v\0"},
    "a lone surrogate in a key": {"\ud800": "v"},
    "a lone surrogate in a value": {"a": "\udfff"},
    "a surrogate pair in two code points": {"a": "\ud83d\udd12"},
}


@pytest.mark.parametrize("pairs", WITHIN.values(), ids=WITHIN.keys())
def test_within_limits(pairs: dict[str, str]) -> None:
    assert context.decode(context.encode(pairs)) == pairs


@pytest.mark.parametrize("pairs", BEYOND.values(), ids=BEYOND.keys())
def test_beyond_limits(pairs: dict[str, str]) -> None:
    with pytest.raises(InvalidContext) as caught:
        context.encode(pairs)
    # One sentence that a terminal can show: no surrogate, no control character, no page of text.
    assert caught.value.message.isprintable()
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 1024


def test_lengths_are_exact() -> None:
    assert [len(context.encode(of_length(length))) for length in (8191, 8192)] == [8191, 8192]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "A context is a mapping of text, not NoneType."),
        ([("a", "b")], "A context is a mapping of text, not list."),
        ("a", "A context is a mapping of text, not str."),
        ({1: "b"}, "A context key is text, not int."),
        ({b"a": "b"}, "A context key is text, not bytes."),
        ({None: "b"}, "A context key is text, not NoneType."),
        ({"a": 1}, "The value of context key 'a' is not text but int."),
        ({"a": b"b"}, "The value of context key 'a' is not text but bytes."),
        ({"a": None}, "The value of context key 'a' is not text but NoneType."),
        ({"a": True}, "The value of context key 'a' is not text but bool."),
    ],
    ids=repr,
)
def test_a_context_is_text(pairs: Mapping[str, str], message: str) -> None:
    with pytest.raises(InvalidContext) as caught:
        context.encode(pairs)
    assert caught.value.message == message


class Repeats(Mapping[str, str]):
    """A mapping that says one key twice, which no dict does."""

    def __getitem__(self, key: str) -> str:
        return "v"

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "a"])

    def __len__(self) -> int:
        return 2


def test_a_mapping_that_repeats_itself_still_encodes_validly() -> None:
    assert context.encode(Repeats()) == context.encode({"a": "v"})


def test_no_context_is_the_empty_one() -> None:
    assert context.encode({}) == context.EMPTY


def test_a_digest_is_under_its_own_label() -> None:
    # printf 'keycustody.context.v1\0\0\0' | sha256sum
    expected = "13cc690b3075049ecb35df11d4afc1b4103c338f77e57da45b94db7ea5d2810e"
    assert context.digest(context.EMPTY).hex() == expected
