"""Signing: the agent decides what a key may sign, because tokens do not (docs/adr/0010).

Digests are exactly as long as the algorithm's hash, prehashed input only where the key permits it,
and each item gets its own result.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import Struct

from keycustody import algorithms
from keycustody.algorithms import Scheme, SignatureAlgorithm
from keycustody.config import KeySettings
from keycustody.custody.items import spread
from keycustody.custody.keys.key import Key
from keycustody.custody.operation import Caller, Desk
from keycustody.errors import (
    AlgorithmMismatch,
    DigestLength,
    InvalidRequest,
    KeycustodyError,
    MessageTooLarge,
)
from keycustody.token.api import Fault, Sign

#: How an ECDSA signature is encoded; the numbers are those of keycustody.v1.EcdsaEncoding.
UNSPECIFIED, DER, RAW = ENCODINGS = (0, 1, 2)
_HASHES = {"SHA_256": hashlib.sha256, "SHA_384": hashlib.sha384, "SHA_512": hashlib.sha512}


class Item(Struct, frozen=True):
    """One thing to sign: a whole message, or its digest; `missing` if the request had neither."""

    data: bytes
    prehashed: bool
    missing: bool = False

    def __repr__(self) -> str:
        return f"Item({len(self.data)} bytes)"


class Order(Struct, frozen=True):
    """What is asked. `encoding` is one of `ENCODINGS`. `read` makes an `Item` of one of `items`:
    there may be too many of them to do that before they were counted."""

    key: str
    version: int
    algorithm: str
    encoding: int
    items: Sequence[Any]
    read: Callable[[Any], Item]

    def __repr__(self) -> str:
        return f"Order({self.key!r}, {len(self.items)} items)"


class Signed(Struct, frozen=True):
    """What became of each item, and the version that signed."""

    version: int
    results: Sequence[bytes | Fault]


async def sign(desk: Desk, caller: Caller, order: Order) -> Signed:
    """Sign each item. Raises for what concerns the whole request; items fail one by one."""
    async with desk.operation(caller, "sign", key=order.key, algorithm=order.algorithm) as entry:
        key = desk.admit(caller, entry, count=len(order.items))
        version = key.version(order.version, "sign")
        entry.version = version.number
        desk.check_count(len(order.items))
        algorithm = permitted(key, order.algorithm)
        check_encoding(order.encoding, algorithm)
        limit = desk.rules.limits.message_bytes
        items = [order.read(item) for item in order.items]
        inputs = [_input(item, algorithm, key.declared, limit) for item in items]
        messages = [item.data for item in items]
        entry.note_items(messages, inputs)
        entry.write_ahead()

        async def ask(part: list[bytes]) -> list[bytes | Fault]:
            request = Sign(version.ref, algorithm.name, part)
            return (await entry.call(request)).items

        results = await spread(inputs, ask)
        if algorithm.scheme is Scheme.ECDSA and order.encoding != RAW:
            results = [r if isinstance(r, Fault) else _to_der(r) for r in results]
        entry.note_items(messages, results)
        return Signed(version.number, results)


def permitted(key: Key, name: str) -> SignatureAlgorithm:
    """Return the algorithm if the key may be used with it; `AlgorithmMismatch` otherwise."""
    algorithm = algorithms.signature(name)
    if name not in key.algorithms:
        raise AlgorithmMismatch(
            f"{name} does not fit key {key.name!r}, which is {key.declared.algorithm}; it signs "
            f"with {', '.join(key.algorithms)}."
        )
    return algorithm


def check_encoding(encoding: int, algorithm: SignatureAlgorithm) -> None:
    """Refuse an encoding that is unknown, or asked of what is not ECDSA."""
    if encoding not in ENCODINGS:
        raise InvalidRequest(f"ECDSA encoding {encoding} is not known.")
    if encoding != UNSPECIFIED and algorithm.scheme is not Scheme.ECDSA:
        raise InvalidRequest("An ECDSA encoding is for ECDSA only.")


def _input(
    item: Item, algorithm: SignatureAlgorithm, declared: KeySettings, limit: int
) -> bytes | Fault:
    """Return what the token is to sign, or why this item cannot be signed."""
    if item.missing:
        return _fault(InvalidRequest, "An item holds neither a message nor a digest.")
    if not item.prehashed:
        if len(item.data) > limit:
            return _fault(
                MessageTooLarge,
                f"A message is {len(item.data)} bytes, and the limit is {limit}; "
                "larger ones are signed by their digest, with a key that has prehashed = true.",
            )
        return _hashed(item.data, algorithm)
    if algorithm.hash is None:
        return _fault(InvalidRequest, f"{algorithm.name} signs whole messages, not digests.")
    if not declared.prehashed:
        return _fault(
            InvalidRequest,
            "This key signs whole messages only; `prehashed = true` in its settings would permit "
            "digests.",
        )
    if len(item.data) != algorithm.digest_bytes:
        return _fault(
            DigestLength,
            f"{algorithm.name} takes a digest of {algorithm.digest_bytes} bytes, "
            f"not {len(item.data)}.",
        )
    return item.data


def _hashed(message: bytes, algorithm: SignatureAlgorithm) -> bytes:
    if algorithm.hash is None:
        return message
    return _HASHES[algorithm.hash](message).digest()


def _fault(error: type[KeycustodyError], message: str) -> Fault:
    return Fault(error.code, message)


def _to_der(raw: bytes) -> bytes:
    half = len(raw) // 2
    return encode_dss_signature(
        int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    )
