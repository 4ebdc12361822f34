"""Every vector, read by a second program that was written from docs/format.md alone."""

import ast
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.vectors import second_reader as reader

HERE = Path(__file__).parent
Vector = dict[str, Any]

FILES: dict[str, dict[str, Any]] = {
    name: json.loads((HERE / f"{name}.json").read_text(encoding="ascii"))
    for name in ("context", "wrapped_key", "delivery", "envelope")
}
# Every list there is. A new one fails a test below until it is run, and then stands here.
LISTS = {
    "context": {"encode", "refuse_to_encode", "refuse_to_decode"},
    "wrapped_key": {"unwrap", "refuse"},
    "delivery": {"open", "refuse", "refuse_point"},
    "envelope": {"keys", "open", "refuse"},
}
TABLE = {
    "TRUNCATED_ENVELOPE",
    "MALFORMED_ENVELOPE",
    "UNEXPECTED_KEY",
    "UNEXPECTED_CONTEXT",
    "WRAPPED_KEY_REJECTED",
    "DECRYPTION_FAILED",
}


def each(name: str, part: str) -> pytest.MarkDecorator:
    vectors = FILES[name][part]
    return pytest.mark.parametrize("vector", vectors, ids=[vector["id"] for vector in vectors])


def unhex(vector: Vector, member: str) -> bytes:
    return bytes.fromhex(vector[member])


def pairs_of(value: list[list[str]] | None) -> list[tuple[str, str]] | None:
    return None if value is None else [(key, text) for key, text in value]


def bound_of(vector: Vector) -> reader.Bound:
    return reader.Bound(
        vector["suite"], vector["key"], vector["version"], unhex(vector, "context_hash")
    )


# -------------------------------------------------------------------------------- independence


def test_reader_imports_nothing_but_the_standard_library_and_cryptography() -> None:
    tree = ast.parse((HERE / "second_reader.py").read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import may lead anywhere"
            imported.add(node.module or "")
        elif isinstance(node, ast.Name):
            assert node.id not in {"__import__", "eval", "exec", "compile"}
    packages = {name.partition(".")[0] for name in imported}
    assert packages.isdisjoint({"importlib", "runpy", "pkgutil", "subprocess"})
    assert packages - set(sys.stdlib_module_names) == {"cryptography"}


def test_no_vector_is_left_out() -> None:
    for name, file in FILES.items():
        assert file["format"]
        assert {part for part, value in file.items() if isinstance(value, list)} == LISTS[name]


# ------------------------------------------------------------------------------------- context


@each("context", "encode")
def test_context(vector: Vector) -> None:
    encoded = unhex(vector, "encoded")
    pairs = pairs_of(vector["pairs"]) or []
    assert reader.encode_context(pairs) == encoded
    assert sorted(reader.decode_context(encoded)) == sorted(pairs)
    assert reader.context_hash(encoded) == unhex(vector, "context_hash")


@each("context", "refuse_to_encode")
def test_context_refused_to_encode(vector: Vector) -> None:
    with pytest.raises(reader.Refused) as refused:
        reader.encode_context(pairs_of(vector["pairs"]) or [])
    assert refused.value.code == vector["error"]


@each("context", "refuse_to_decode")
def test_context_refused_to_decode(vector: Vector) -> None:
    with pytest.raises(reader.Refused) as refused:
        reader.decode_context(unhex(vector, "encoded"))
    assert refused.value.code == vector["error"]


# --------------------------------------------------------------------------------- wrapped key


def unwrap(vector: Vector) -> bytes:
    return reader.unwrap_key(
        unhex(vector, "aes_key"),
        unhex(vector, "mac_key"),
        bound_of(vector),
        unhex(vector, "wrapped"),
    )


@each("wrapped_key", "unwrap")
def test_wrapped_key(vector: Vector) -> None:
    encoded = reader.encode_context(pairs_of(vector["context"]) or [])
    assert reader.context_hash(encoded) == unhex(vector, "context_hash")
    kw = unhex(vector, "kw")
    assert reader.wrapped_key_binding(bound_of(vector), kw) == unhex(vector, "binding")
    assert kw + unhex(vector, "tag") == unhex(vector, "wrapped")
    assert unwrap(vector) == unhex(vector, "session_key")


@each("wrapped_key", "refuse")
def test_wrapped_key_refused(vector: Vector) -> None:
    with pytest.raises(reader.Refused) as refused:
        unwrap(vector)
    assert refused.value.code == vector["error"]
    # "Every failure MUST look the same to the caller."
    assert refused.value.args == (vector["error"],)


# ------------------------------------------------------------------------------------ delivery


def open_delivery(vector: Vector) -> bytes:
    return reader.open_delivery(
        unhex(vector, "ephemeral_private"),
        unhex(vector, "client_point"),
        bound_of(vector),
        unhex(vector, "delivery_point"),
        unhex(vector, "wrapped"),
        unhex(vector, "sealed"),
    )


@each("delivery", "open")
def test_delivery(vector: Vector) -> None:
    delivery, client = unhex(vector, "delivery_point"), unhex(vector, "client_point")
    z, binding, t = unhex(vector, "z"), unhex(vector, "binding"), unhex(vector, "t")
    encoded = reader.encode_context(pairs_of(vector["context"]) or [])
    assert reader.context_hash(encoded) == unhex(vector, "context_hash")
    assert reader.shared_secret(unhex(vector, "ephemeral_private"), delivery) == z
    assert reader.shared_secret(unhex(vector, "delivery_private"), client) == z
    wrapped = unhex(vector, "wrapped")
    assert reader.delivery_binding(bound_of(vector), delivery, client, wrapped) == binding
    assert reader.delivery_key(z, binding) == t
    assert aes_key_wrap(t, unhex(vector, "session_key")) == unhex(vector, "sealed")
    assert open_delivery(vector) == unhex(vector, "session_key")


@each("delivery", "refuse")
def test_delivery_refused(vector: Vector) -> None:
    with pytest.raises(reader.Refused) as refused:
        open_delivery(vector)
    assert refused.value.code == vector["error"]


@each("delivery", "refuse_point")
def test_point_refused(vector: Vector) -> None:
    with pytest.raises(reader.Refused) as refused:
        reader.check_point(unhex(vector, "point"))
    assert refused.value.code == vector["error"]


@pytest.mark.parametrize(
    ("suite", "version", "cut", "extra"),
    [(2, 1, 72, b""), (1, 0, 72, b""), (1, 1, 71, b""), (1, 1, 72, bytes(8))],
    ids=["suite 2", "version 0", "a wrapped key of 71 bytes", "a session key of 40 bytes"],
)
def test_delivery_outside_the_limits_is_refused_although_it_fits(
    suite: int, version: int, cut: int, extra: bytes
) -> None:
    """The vectors of these names are not sealed to fit, and so fail without any check of them."""
    vector = FILES["delivery"]["open"][0]
    private, client = unhex(vector, "ephemeral_private"), unhex(vector, "client_point")
    delivery, wrapped = unhex(vector, "delivery_point"), unhex(vector, "wrapped")[:cut]
    bound = reader.Bound(suite, vector["key"], version, unhex(vector, "context_hash"))
    binding = reader.delivery_binding(bound, delivery, client, wrapped)
    t = reader.delivery_key(unhex(vector, "z"), binding)
    sealed = aes_key_wrap(t, unhex(vector, "session_key") + extra)
    with pytest.raises(reader.Refused) as refused:
        reader.open_delivery(private, client, bound, delivery, wrapped, sealed)
    assert refused.value.code == "DELIVERY_REJECTED"


# ------------------------------------------------------------------------------------ envelope


def part_of(part: dict[str, Any]) -> bytes:
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    if "base64" in part:
        return base64.b64decode(part["base64"], validate=True)
    whole = envelope_of(next(v for v in FILES["envelope"]["open"] if v["id"] == part["of"]))
    return whole[part["from"] : part["to"]]


def envelope_of(vector: Vector) -> bytes:
    return b"".join(part_of(part) for part in vector["envelope"])


def keys_of(header: reader.Header) -> tuple[bytes, bytes]:
    for keys in FILES["envelope"]["keys"]:
        if (keys["key"], keys["version"]) == (header.key, header.version):
            return unhex(keys, "aes_key"), unhex(keys, "mac_key")
    raise AssertionError("envelope.json has no such key")


def unwrap_with_keys(header: reader.Header) -> bytes:
    return reader.unwrap_key(*keys_of(header), header.bound(), header.wrapped)


def read(vector: Vector, envelope: bytes, key: str | None, pairs: Any) -> bytes:
    return reader.read_envelope(
        envelope,
        key=key,
        pairs=pairs_of(pairs),
        unwrap=unwrap_with_keys,
        associated_data=unhex(vector, "associated_data"),
    )


@each("envelope", "open")
def test_envelope(vector: Vector) -> None:
    envelope = envelope_of(vector)
    header = reader.parse_header(envelope)
    assert (header.key, header.version) == (vector["key"], vector["version"])
    assert header.context == reader.encode_context(pairs_of(vector["context"]) or [])
    assert header.wrapped == unhex(vector, "wrapped")
    assert header.length == vector["header_length"]
    assert unwrap_with_keys(header) == unhex(vector, "session_key")
    plaintext = read(vector, envelope, vector["key"], vector["context"])
    length = vector["plaintext_length"]
    assert plaintext == bytes(i % 251 for i in range(length))
    assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]
    # "Its overhead is 56 bytes, and 16 for each chunk", the last one shorter than 16 KiB.
    assert len(envelope) - header.length == length + 56 + 16 * (length // 16384 + 1)


@each("envelope", "refuse")
def test_envelope_refused(vector: Vector) -> None:
    envelope = envelope_of(vector)
    with pytest.raises(reader.Refused) as refused:
        read(vector, envelope, vector["required_key"], vector["required_context"])
    assert refused.value.code == vector["error"]
    assert refused.value.code in TABLE


@each("envelope", "open")
def test_each_cut_of_an_envelope_is_refused_by_where_it_is(vector: Vector) -> None:
    envelope = envelope_of(vector)
    length = vector["header_length"]
    # As far as the commitment, beyond which each body goes on; and one byte short of the end.
    for end in (*range(length + 56), len(envelope) - 1):
        with pytest.raises(reader.Refused) as refused:
            read(vector, envelope[:end], None, None)
        assert refused.value.code == ("TRUNCATED_ENVELOPE" if end < length else "DECRYPTION_FAILED")


def test_nothing_is_unwrapped_before_the_header_is_what_was_required() -> None:
    vector = FILES["envelope"]["open"][0]

    def never(header: reader.Header) -> bytes:
        raise AssertionError(f"asked to unwrap {header.key}")

    for key, pairs, code in (("orderz", None, "KEY"), (None, [("tenant", "43")], "CONTEXT")):
        envelope = envelope_of(vector)
        with pytest.raises(reader.Refused) as refused:
            reader.read_envelope(envelope, key=key, pairs=pairs, unwrap=never)
        assert refused.value.code == f"UNEXPECTED_{code}"


def test_each_bit_of_an_envelope_counts() -> None:
    vector = FILES["envelope"]["open"][0]
    envelope = envelope_of(vector)
    # An edited header may name a key that is not there: offer it the ones that would have fitted.
    keys = keys_of(reader.parse_header(envelope))
    for bit in range(8 * len(envelope)):
        edited = bytearray(envelope)
        edited[bit // 8] ^= 1 << bit % 8
        with pytest.raises(reader.Refused) as refused:
            reader.read_envelope(
                bytes(edited),
                key=None,
                pairs=None,
                unwrap=lambda header: reader.unwrap_key(*keys, header.bound(), header.wrapped),
            )
        assert refused.value.code in TABLE
