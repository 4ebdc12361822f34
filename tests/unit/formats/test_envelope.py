import hashlib
from types import MappingProxyType

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from keycustody.errors import (
    InvalidContext,
    InvalidRequest,
    MalformedEnvelope,
    TruncatedEnvelope,
    UnexpectedContext,
    UnexpectedKey,
)
from keycustody.formats import context
from keycustody.formats.envelope import (
    MAX_HEADER_BYTES,
    MIN_BODY_BYTES,
    SLOT_BYTES,
    Header,
    body_context,
    parse,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=16)
headers = st.builds(
    Header.of,
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    st.dictionaries(texts.filter(bool), texts, max_size=6),
    st.integers(1, 2**32 - 1),
    st.binary(min_size=72, max_size=72),
)

PAIRS = {"tenant": "42", "purpose": "export"}
WRAPPED = bytes(range(72))
HEADER = Header.of("orders", PAIRS, 3, WRAPPED)
SESSION_KEY = bytes(range(32))


def largest() -> Header:
    filler = {f"{index:02}": "v" * 1024 for index in range(7)}
    room = 8192 - len(context.encode({**filler, "last": ""}))
    return Header.of("a" * 64, {**filler, "last": "v" * room}, 2**32 - 1, WRAPPED)


# -- parse and encode ------------------------------------------------------------------------------


@given(headers, st.binary(max_size=100))
def test_round_trip(header: Header, body: bytes) -> None:
    encoded = header.encode()
    assert encoded == header.fixed + header.slot
    assert parse(encoded + body) == (header, len(encoded))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type[bytes | bytearray | memoryview]) -> None:
    assert parse(kind(HEADER.encode() + b"body")) == (HEADER, len(HEADER.encode()))


def test_a_header_as_the_specification_writes_it() -> None:
    header = Header.of("ab", {"c": "d"}, 258, WRAPPED)
    assert header.fixed == b"KCUSTODY\1\0\1\0\2ab\0\x08\0\1\0\1c\0\1d"
    assert header.slot == b"\0\0\1\2\0\x48" + WRAPPED


def test_the_largest_header() -> None:
    assert MAX_HEADER_BYTES == 8349
    encoded = largest().encode()
    assert len(encoded) == MAX_HEADER_BYTES
    assert parse(encoded + b"body") == (largest(), MAX_HEADER_BYTES)
    with pytest.raises(TruncatedEnvelope):
        parse(encoded[:-1])


@given(headers, st.data())
def test_a_prefix_is_truncated(header: Header, data: st.DataObject) -> None:
    encoded = header.encode()
    length = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(TruncatedEnvelope):
        parse(encoded[:length])


def test_every_prefix_is_truncated() -> None:
    encoded = HEADER.encode()
    for length in range(len(encoded)):
        with pytest.raises(TruncatedEnvelope):
            parse(encoded[:length])


def parsed(data: bytes) -> Header | None:
    """What `data` parses to, if anything; whatever is accepted encodes to itself."""
    try:
        header, length = parse(data)
    except MalformedEnvelope:
        return None
    assert header.encode() == data[:length]
    return header


def test_every_edit_is_refused_or_parses_to_something_else() -> None:
    # An emoji and an empty value, so that edits meet UTF-8 and lengths; a body, so that a length
    # may grow into it.
    good = Header.of("a.b-1", {"k": "", "l\u00e9": "\U0001f512"}, 3, WRAPPED)
    encoded, body = good.encode(), bytes(range(256))
    for index in range(len(encoded)):
        for value in set(range(256)) - {encoded[index]}:
            header = parsed(encoded[:index] + bytes([value]) + encoded[index + 1 :] + body)
            assert header != good


# Each example parses every prefix, so its time says nothing.
@settings(deadline=None)
@given(headers, st.data())
def test_a_header_is_malformed_at_the_field_that_is(header: Header, data: st.DataObject) -> None:
    """Once a prefix is malformed, all that begins with it is; before, it is truncated."""
    encoded = bytearray(header.encode())
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] ^= data.draw(st.integers(1, 255))
    kinds = [kind_of(bytes(encoded[:length])) for length in range(len(encoded) + 1)]
    assert kinds == sorted(kinds, key=["truncated", "malformed", "valid"].index)
    assert not {"malformed", "valid"} <= set(kinds)


def kind_of(data: bytes) -> str:
    try:
        parse(data)
    except TruncatedEnvelope:
        return "truncated"
    except MalformedEnvelope:
        return "malformed"
    return "valid"


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    parsed(data)
    parsed(b"KCUSTODY\1\0\1" + data)


@pytest.mark.parametrize("data", [b"k", b"KCUSTODX", b"KX", b"\0", b"PK\3\4", b"age-encryption"])
def test_another_magic_is_known_at_once(data: bytes) -> None:
    assert kind_of(data) == "malformed"


NAME_AT, CONTEXT_AT, VERSION_AT = 11, 19, len(HEADER.fixed)


@pytest.mark.parametrize(
    "start",
    [
        b"KCUSTODY\0",
        b"KCUSTODY\2",
        b"KCUSTODY\1\0\0",
        b"KCUSTODY\1\0\2",
        b"KCUSTODY\1\xff\xff",
        HEADER.fixed[:NAME_AT] + b"\0\0",
        HEADER.fixed[:NAME_AT] + b"\0\x41",
        HEADER.fixed[:NAME_AT] + b"\0\1A",
        HEADER.fixed[:NAME_AT] + b"\0\1\xe9",
        HEADER.fixed[:CONTEXT_AT] + b"\0\0",
        HEADER.fixed[:CONTEXT_AT] + b"\0\1",
        HEADER.fixed[:CONTEXT_AT] + b"\x20\1",
        HEADER.fixed[:CONTEXT_AT] + b"\0\2\0\1",
        HEADER.fixed + b"\0\0\0\0",
        HEADER.fixed + b"\0\0\0\1\0\x47",
        HEADER.fixed + b"\0\0\0\1\0\x49",
        HEADER.fixed + b"\0\0\0\1\xff\xff",
    ],
)
def test_a_wrong_field_is_malformed_before_more_is_read(start: bytes) -> None:
    assert kind_of(start[:-1]) == "truncated"
    assert kind_of(start) == "malformed"
    assert kind_of(start + bytes(MAX_HEADER_BYTES)) == "malformed"


@pytest.mark.parametrize("length", [1, 2, 63, 64])
def test_name_lengths(length: int) -> None:
    header = Header.of("a" * length, {}, 1, WRAPPED)
    assert parse(header.encode()) == (header, len(header.encode()))


# -- Header ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2**32 - 1])
def test_versions(version: int) -> None:
    header = Header.of("orders", PAIRS, version, WRAPPED)
    assert parse(header.encode())[0].version == version


@pytest.mark.parametrize(
    ("suite", "key", "version", "wrapped"),
    [
        (0, "orders", 1, WRAPPED),
        (2, "orders", 1, WRAPPED),
        (1, "", 1, WRAPPED),
        (1, "a" * 65, 1, WRAPPED),
        (1, "Orders", 1, WRAPPED),
        (1, "orders", 0, WRAPPED),
        (1, "orders", 2**32, WRAPPED),
        (1, "orders", 1, WRAPPED[:-1]),
        (1, "orders", 1, WRAPPED + b"\0"),
    ],
)
def test_no_header_of_what_is_not_valid(suite: int, key: str, version: int, wrapped: bytes) -> None:
    with pytest.raises(InvalidRequest):
        Header(suite, key, context.EMPTY, version, wrapped)


def test_no_header_of_an_invalid_context() -> None:
    with pytest.raises(MalformedEnvelope):
        Header(1, "orders", b"\0\1", 1, WRAPPED)
    with pytest.raises(InvalidContext):
        Header.of("orders", {"": ""}, 1, WRAPPED)


def test_a_header_cannot_be_changed() -> None:
    assert isinstance(HEADER.context, MappingProxyType)
    assert HEADER.context == PAIRS
    with pytest.raises(AttributeError):
        HEADER.version = 4  # type: ignore[misc]


def test_equal_headers_are_one_key_of_a_dict() -> None:
    again = Header.of("orders", dict(reversed(PAIRS.items())), 3, WRAPPED)
    _ = again.fixed, again.slot, again.body_prefix  # what is computed later does not count
    assert {HEADER: 1}[again] == 1


def test_context_hash() -> None:
    assert HEADER.context_hash == context.digest(context.encode(PAIRS))


def test_rewrap_replaces_the_slot_in_place() -> None:
    after = HEADER.with_slot(4, WRAPPED[::-1])
    assert after.fixed == HEADER.fixed
    assert len(after.slot) == len(HEADER.slot) == SLOT_BYTES == 78
    assert (after.version, after.wrapped_key) == (4, WRAPPED[::-1])
    start = len(HEADER.fixed)
    patched = HEADER.encode()[:start] + after.slot + HEADER.encode()[start + SLOT_BYTES :]
    assert patched == after.encode()
    assert body_context(after, b"aad") == body_context(HEADER, b"aad")


def test_a_slot_is_checked_as_a_header_is() -> None:
    with pytest.raises(InvalidRequest):
        HEADER.with_slot(0, WRAPPED)
    with pytest.raises(InvalidRequest):
        HEADER.with_slot(1, WRAPPED[:-1])


# -- what a caller requires ------------------------------------------------------------------------


def test_what_is_required_and_there() -> None:
    HEADER.require_key("orders")
    HEADER.require_context(context.encode(PAIRS))


@pytest.mark.parametrize("key", ["order", "orders2", ""])
def test_another_key_is_required(key: str) -> None:
    with pytest.raises(UnexpectedKey):
        HEADER.require_key(key)


@pytest.mark.parametrize(
    "pairs", [{}, {"tenant": "42"}, {**PAIRS, "tenant": "43"}, {**PAIRS, "more": ""}]
)
def test_another_context_is_required(pairs: dict[str, str]) -> None:
    required = context.encode(pairs)
    with pytest.raises(UnexpectedContext):
        HEADER.require_context(required)


# -- binding the body ------------------------------------------------------------------------------


@given(headers, st.binary(max_size=64))
def test_body_context(header: Header, aad: bytes) -> None:
    assert body_context(header, aad) == (
        b"keycustody.envelope.v1\0"
        + hashlib.sha256(header.fixed).digest()
        + hashlib.sha256(aad).digest()
    )
    assert body_context(header, memoryview(aad)) == body_context(header, bytearray(aad))


def test_absent_associated_data_is_empty() -> None:
    assert body_context(HEADER) == body_context(HEADER, b"")


def opens(sealed_under: bytes, opened_under: bytes) -> bool:
    encryptor = Cobblestone256Encryptor(SESSION_KEY, sealed_under)
    body = encryptor.update(b"plaintext") + encryptor.finalize()
    decryptor = Cobblestone256Decryptor(SESSION_KEY, opened_under)
    try:
        return decryptor.update(body) + decryptor.finalize() == b"plaintext"
    except InvalidTag:
        return False


@pytest.mark.parametrize(
    ("header", "aad", "expected"),
    [
        (HEADER, b"aad", True),
        (HEADER.with_slot(9, WRAPPED[::-1]), b"aad", True),
        (HEADER, b"aae", False),
        (HEADER, b"", False),
        (Header.of("order", PAIRS, 3, WRAPPED), b"aad", False),
        (Header.of("orders", {}, 3, WRAPPED), b"aad", False),
    ],
)
def test_the_body_is_bound_to_fixed_and_associated_data(
    header: Header, aad: bytes, expected: bool
) -> None:
    assert opens(body_context(HEADER, b"aad"), body_context(header, aad)) is expected


def test_the_shortest_body() -> None:
    encryptor = Cobblestone256Encryptor(SESSION_KEY, body_context(HEADER))
    assert len(encryptor.update(b"") + encryptor.finalize()) == MIN_BODY_BYTES
