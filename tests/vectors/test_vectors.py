"""The project's code against the vectors of this folder; README.md says what they hold."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from keycustody.errors import BY_CODE, DecryptionFailed, KeycustodyError, WrappedKeyRejected
from keycustody.formats import audit, context, delivery, envelope, state, wrapped_key
from tests.vectors import generate

Vector = dict[str, Any]

FOLDER = Path(__file__).parent
CONTEXT, WRAPPED_KEY, DELIVERY, ENVELOPE, STATE, AUDIT = (
    json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))
    for name in ("context", "wrapped_key", "delivery", "envelope", "state", "audit")
)


def each(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "vector", vectors, ids=[vector["id"].replace(":", "") for vector in vectors]
    )


def raises(vector: Vector) -> pytest.RaisesExc[KeycustodyError]:
    """Exactly the class that the vector names: no subclass, no parent."""
    expected = BY_CODE[vector["error"]]
    return pytest.RaisesExc(expected, check=lambda error: type(error) is expected)


def test_files_without_salts_are_what_the_generator_makes() -> None:
    assert generate.stale() == []


# -- context ---------------------------------------------------------------------------------------


@each(CONTEXT["encode"])
def test_context(vector: Vector) -> None:
    pairs = dict(vector["pairs"])
    encoded = bytes.fromhex(vector["encoded"])
    assert context.encode(pairs) == encoded
    assert context.decode(encoded) == pairs
    assert context.digest(encoded).hex() == vector["context_hash"]


@each(CONTEXT["refuse_to_encode"])
def test_context_refused_to_encode(vector: Vector) -> None:
    pairs = dict(vector["pairs"])
    with raises(vector):
        context.encode(pairs)


@each(CONTEXT["refuse_to_decode"])
def test_context_refused_to_decode(vector: Vector) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    with raises(vector):
        context.decode(encoded)


# -- wrapped key -----------------------------------------------------------------------------------


def unwrap(
    suite: int, key: str, version: int, context_hash: bytes, keys: Vector, wrapped: bytes
) -> bytes:
    """What the token does, with keys that it would not show."""
    kw, tag = wrapped_key.split(wrapped)
    bound = wrapped_key.binding(suite, key, version, context_hash, kw)
    if not hmac.compare_digest(hmac.digest(bytes.fromhex(keys["mac_key"]), bound, "sha256"), tag):
        raise WrappedKeyRejected("tag")
    try:
        return aes_key_unwrap(bytes.fromhex(keys["aes_key"]), kw)
    except InvalidUnwrap as error:
        raise WrappedKeyRejected("KW") from error


def unwrap_vector(vector: Vector) -> bytes:
    return unwrap(
        vector["suite"],
        vector["key"],
        vector["version"],
        bytes.fromhex(vector["context_hash"]),
        vector,
        bytes.fromhex(vector["wrapped"]),
    )


@each(WRAPPED_KEY["unwrap"])
def test_wrapped_key(vector: Vector) -> None:
    wrapped = bytes.fromhex(vector["wrapped"])
    context_hash = context.digest(context.encode(dict(vector["context"])))
    kw, tag = wrapped_key.split(wrapped)
    assert (kw.hex(), tag.hex()) == (vector["kw"], vector["tag"])
    assert wrapped_key.join(kw, tag) == wrapped
    assert context_hash.hex() == vector["context_hash"]
    bound = wrapped_key.binding(vector["suite"], vector["key"], vector["version"], context_hash, kw)
    assert bound.hex() == vector["binding"]
    assert unwrap_vector(vector).hex() == vector["session_key"]


@each(WRAPPED_KEY["refuse"])
def test_wrapped_key_refused(vector: Vector) -> None:
    with raises(vector):
        unwrap_vector(vector)


# -- delivery --------------------------------------------------------------------------------------


def asked(vector: Vector) -> dict[str, Any]:
    as_bytes = ("delivery_point", "client_point", "context_hash", "wrapped")
    return {
        "suite": vector["suite"],
        "name": vector["key"],
        "version": vector["version"],
        **{member: bytes.fromhex(vector[member]) for member in as_bytes},
    }


def private(scalar: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(scalar, 16), ec.SECP256R1())


@each(DELIVERY["open"])
def test_delivery(vector: Vector) -> None:
    ephemeral = private(vector["ephemeral_private"])
    agent = private(vector["delivery_private"])
    assert delivery.public_point(ephemeral).hex() == vector["client_point"]
    assert delivery.public_point(agent).hex() == vector["delivery_point"]
    assert delivery.binding(**asked(vector)).hex() == vector["binding"]
    sealed = bytes.fromhex(vector["sealed"])
    session_key = delivery.open_sealed(ephemeral, sealed, **asked(vector))
    assert session_key.hex() == vector["session_key"]


@each(DELIVERY["refuse"])
def test_delivery_refused(vector: Vector) -> None:
    ephemeral = private(vector["ephemeral_private"])
    sealed, request = bytes.fromhex(vector["sealed"]), asked(vector)
    with raises(vector):
        delivery.open_sealed(ephemeral, sealed, **request)


@each(DELIVERY["refuse_point"])
def test_point_refused(vector: Vector) -> None:
    point, curve = bytes.fromhex(vector["point"]), ec.SECP256R1()
    with raises(vector):
        delivery.check_point(point, curve)


# -- envelope --------------------------------------------------------------------------------------


def assemble(parts: list[Vector]) -> bytes:
    return b"".join(_part(part) for part in parts)


def _part(part: Vector) -> bytes:
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    if "base64" in part:
        return base64.b64decode(part["base64"], validate=True)
    (source,) = (vector for vector in ENVELOPE["open"] if vector["id"] == part["of"])
    return assemble(source["envelope"])[part["from"] : part["to"]]


def open_envelope(
    data: bytes,
    aad: bytes,
    key: str | None,
    required_context: list[tuple[str, str]] | None,
    update_bytes: int,
) -> bytes:
    header, length = envelope.parse(data)
    if key is not None:
        header.require_key(key)
    if required_context is not None:
        header.require_context(context.encode(dict(required_context)))
    (keys,) = (
        entry
        for entry in ENVELOPE["keys"]
        if (entry["key"], entry["version"]) == (header.key, header.version)
    )
    session_key = unwrap(
        header.suite, header.key, header.version, header.context_hash, keys, header.wrapped_key
    )
    decryptor = Cobblestone256Decryptor(session_key, envelope.body_context(header, aad))
    try:
        plaintext = [
            decryptor.update(data[start : start + update_bytes])
            for start in range(length, len(data), update_bytes)
        ]
        return b"".join(plaintext) + decryptor.finalize()
    except InvalidTag as error:
        raise DecryptionFailed("body") from error


@each(ENVELOPE["open"])
@pytest.mark.parametrize("update_bytes", [1 << 20, 1000])
def test_envelope(vector: Vector, update_bytes: int) -> None:
    data, aad = assemble(vector["envelope"]), bytes.fromhex(vector["associated_data"])
    header, length = envelope.parse(data)
    wrapped = bytes.fromhex(vector["wrapped"])
    assert header == envelope.Header.of(
        vector["key"], dict(vector["context"]), vector["version"], wrapped
    )
    assert length == vector["header_length"]
    assert header.encode() == data[:length]
    plaintext = open_envelope(data, aad, vector["key"], vector["context"], update_bytes)
    assert len(plaintext) == vector["plaintext_length"]
    assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]


@each(ENVELOPE["open"])
def test_the_session_key_alone_opens_the_body(vector: Vector) -> None:
    data, aad = assemble(vector["envelope"]), bytes.fromhex(vector["associated_data"])
    header, length = envelope.parse(data)
    session_key = bytes.fromhex(vector["session_key"])
    decryptor = Cobblestone256Decryptor(session_key, envelope.body_context(header, aad))
    plaintext = decryptor.update(data[length:]) + decryptor.finalize()
    assert hashlib.sha256(plaintext).hexdigest() == vector["plaintext_sha256"]


@each(ENVELOPE["refuse"])
@pytest.mark.parametrize("update_bytes", [1 << 20, 1000])
def test_envelope_refused(vector: Vector, update_bytes: int) -> None:
    data, aad = assemble(vector["envelope"]), bytes.fromhex(vector["associated_data"])
    key, required_context = vector["required_key"], vector["required_context"]
    with raises(vector):
        open_envelope(data, aad, key, required_context, update_bytes)


# -- records ---------------------------------------------------------------------------------------


@each(STATE["read"])
def test_state(vector: Vector) -> None:
    data = [bytes.fromhex(record) for record in vector["records"]]
    records = [state.decode(record) for record in data]
    assert [state.encode(record) for record in records] == data
    assert state.worst(records).state == vector["state"]


@each(STATE["refuse"])
def test_state_refused(vector: Vector) -> None:
    with raises(vector):
        state.worst([state.decode(bytes.fromhex(record)) for record in vector["records"]])


@each(AUDIT["verify"])
def test_audit(vector: Vector) -> None:
    chain = audit.Chain()
    for line in vector["lines"]:
        record = chain.add(bytes.fromhex(line))
        assert audit.encode(record).hex() == line
    assert chain.head.hash == vector["head"]


@each(AUDIT["refuse"])
def test_audit_refused(vector: Vector) -> None:
    lines = [bytes.fromhex(line) for line in vector["lines"]]
    chain = audit.Chain()
    for line in lines[: vector["line"] - 1]:
        chain.add(line)
    with raises(vector):
        chain.add(lines[vector["line"] - 1])
