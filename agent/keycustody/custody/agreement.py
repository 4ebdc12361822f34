"""ECDH by keys of purpose `agree`, RSA decryption by keys of purpose `decrypt`.

Points are validated here, before the token sees them, also where a token would do it itself. Failed
decryptions all look the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody import algorithms
from keycustody.algorithms import KEYS
from keycustody.custody.items import spread
from keycustody.custody.operation import Caller, Desk
from keycustody.errors import AlgorithmMismatch, DecryptionFailed, InvalidPoint
from keycustody.formats.delivery import check_point
from keycustody.token.api import Agree, Decrypt, Fault

_CURVES: dict[str, ec.EllipticCurve] = {"EC_P256": ec.SECP256R1(), "EC_P384": ec.SECP384R1()}


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each item, and the version that served."""

    version: int
    # Shared secrets and plaintexts.
    results: Sequence[bytes | Fault] = field(repr=False)


async def agree(
    desk: Desk, caller: Caller, key: str, number: int, points: Sequence[bytes]
) -> Answered:
    """Agree with each peer's uncompressed point; answers x coordinates."""
    async with desk.operation(caller, "agree", key=key) as entry:
        version = desk.admit(caller, entry, count=len(points)).version(number, "agree")
        entry.version = version.number
        desk.check_count(len(points))
        curve = _CURVES[version.ref.algorithm]

        async def ask(part: list[bytes]) -> list[bytes | Fault]:
            request = Agree(version.ref, part)
            return (await entry.call(request)).items

        inputs = [_valid(point, curve) for point in points]
        entry.note_items(points, inputs)
        entry.write_ahead()
        results = await spread(inputs, ask)
        entry.note_items(points, results)
        return Answered(version.number, results)


async def decrypt(
    desk: Desk,
    caller: Caller,
    key: str,
    number: int,
    algorithm: str,
    ciphertexts: Sequence[bytes],
) -> Answered:
    """Decrypt each ciphertext with RSA-OAEP."""
    async with desk.operation(caller, "decrypt", key=key, algorithm=algorithm) as entry:
        found = desk.admit(caller, entry, count=len(ciphertexts))
        version = found.version(number, "decrypt")
        entry.version = version.number
        desk.check_count(len(ciphertexts))
        algorithms.decryption(algorithm)
        if algorithm not in found.algorithms:
            raise AlgorithmMismatch(
                f"{algorithm} is not for key {key!r}; it decrypts with "
                f"{', '.join(found.algorithms)}."
            )
        size = KEYS[version.ref.algorithm].bits // 8

        async def ask(part: list[bytes]) -> list[bytes | Fault]:
            request = Decrypt(version.ref, algorithm, part)
            return (await entry.call(request)).items

        results = await spread(
            [data if len(data) == size else _failed() for data in ciphertexts], ask
        )
        entry.note_items(ciphertexts, results)
        return Answered(version.number, results)


def _valid(point: bytes, curve: ec.EllipticCurve) -> bytes | Fault:
    try:
        check_point(point, curve)
    except InvalidPoint as error:
        return Fault(error.code, error.message)
    return point


def _failed() -> Fault:
    return Fault(
        DecryptionFailed.code, "The ciphertext does not decrypt with this key and algorithm."
    )
