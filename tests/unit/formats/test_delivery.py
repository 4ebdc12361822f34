import subprocess
import sys
from collections.abc import Callable
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from keycustody.errors import (
    DeliveryRejected,
    InvalidPoint,
    InvalidRequest,
    WrappedKeyRejected,
)
from keycustody.formats import delivery

P256 = ec.SECP256R1()
SESSION_KEY = bytes(range(32))


class Request(TypedDict):
    delivery_point: bytes
    client_point: bytes
    suite: int
    name: str
    version: int
    context_hash: bytes
    wrapped: bytes


AGENT = ec.derive_private_key(1234567, P256)
CLIENT = ec.derive_private_key(7654321, P256)
REQUEST = Request(
    delivery_point=delivery.public_point(AGENT),
    client_point=delivery.public_point(CLIENT),
    suite=1,
    name="orders",
    version=3,
    context_hash=b"h" * 32,
    wrapped=b"w" * 72,
)


def changed(**members: object) -> Request:
    return {**REQUEST, **members}  # type: ignore[typeddict-item]


def seal(session_key: bytes, request: Request) -> bytes:
    """What the token does."""
    client = ec.EllipticCurvePublicKey.from_encoded_point(P256, request["client_point"])
    shared = AGENT.exchange(ec.ECDH(), client)
    encryptor = Cipher(algorithms.AES(shared), modes.ECB()).encryptor()  # noqa: S305 - as specified
    transport = encryptor.update(delivery.binding(**request)) + encryptor.finalize()
    return aes_key_wrap(transport, session_key)


SEALED = seal(SESSION_KEY, REQUEST)


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(session_key: bytes) -> None:
    sealed = seal(session_key, REQUEST)
    assert delivery.open_sealed(CLIENT, sealed, **REQUEST) == session_key


OTHER_REQUESTS = {
    "delivery point": changed(delivery_point=REQUEST["client_point"]),
    "client point": changed(client_point=REQUEST["delivery_point"]),
    "name": changed(name="order"),
    "version": changed(version=4),
    "context": changed(context_hash=b"H" * 32),
    "wrapped key": changed(wrapped=b"W" * 72),
}
INVALID_REQUESTS = {
    "suite 0": changed(suite=0),
    "suite 2": changed(suite=2),
    "suite 65537": changed(suite=65537),
    "no name": changed(name=""),
    "version 0": changed(version=0),
    "version 2**32": changed(version=2**32),
    "context hash of 31": changed(context_hash=b"h" * 31),
    "context hash of 33": changed(context_hash=b"h" * 33),
    "wrapped key of 71": changed(wrapped=b"w" * 71),
    "wrapped key of 73": changed(wrapped=b"w" * 73),
    "delivery point of 64": changed(delivery_point=REQUEST["delivery_point"][:-1]),
    "delivery point of 66": changed(delivery_point=REQUEST["delivery_point"] + b"\0"),
    "client point of 64": changed(client_point=REQUEST["client_point"][:-1]),
}


@pytest.mark.parametrize("request_", OTHER_REQUESTS.values(), ids=OTHER_REQUESTS.keys())
def test_an_answer_to_another_request(request_: Request) -> None:
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(CLIENT, SEALED, **request_)


@pytest.mark.parametrize("request_", INVALID_REQUESTS.values(), ids=INVALID_REQUESTS.keys())
def test_an_answer_that_cannot_be(request_: Request) -> None:
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(CLIENT, SEALED, **request_)


@pytest.mark.parametrize("request_", INVALID_REQUESTS.values(), ids=INVALID_REQUESTS.keys())
def test_no_binding_of_what_cannot_be(request_: Request) -> None:
    with pytest.raises((InvalidRequest, WrappedKeyRejected)):
        delivery.binding(**request_)


def test_another_client_cannot_open_it() -> None:
    eavesdropper = ec.generate_private_key(P256)
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(eavesdropper, SEALED, **REQUEST)


@pytest.mark.parametrize("index", range(40))
def test_every_byte_of_what_is_sealed_counts(index: int) -> None:
    sealed = SEALED[:index] + bytes([SEALED[index] ^ 1]) + SEALED[index + 1 :]
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(CLIENT, sealed, **REQUEST)


@pytest.mark.parametrize("length", [0, 16, 24, 32, 39, 41, 48])
def test_what_is_sealed_has_one_length(length: int) -> None:
    sealed = (SEALED + bytes(8))[:length]
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(CLIENT, sealed, **REQUEST)


def test_a_shorter_session_key_is_refused() -> None:
    sealed = seal(SESSION_KEY[:24], REQUEST)
    with pytest.raises(DeliveryRejected):
        delivery.open_sealed(CLIENT, sealed, **REQUEST)


def test_a_delivery_point_off_the_curve() -> None:
    off_curve = REQUEST["delivery_point"][:-1] + b"\0"
    with pytest.raises(DeliveryRejected) as caught:
        delivery.open_sealed(CLIENT, SEALED, **changed(delivery_point=off_curve))
    assert isinstance(caught.value.__cause__, InvalidPoint)


# -- points ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "length"), [(P256, 65), (ec.SECP384R1(), 97), (ec.SECP521R1(), 133)]
)
def test_points(curve: ec.EllipticCurve, length: int) -> None:
    key = ec.generate_private_key(curve)
    point = delivery.public_point(key)
    assert len(point) == length
    assert delivery.check_point(point, curve) == key.public_key()


def leading_byte(value: int) -> Callable[[bytes], bytes]:
    return lambda point: bytes([value]) + point[1:]


BAD_POINTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "infinity": lambda _: b"\0",
    "zeros": lambda point: bytes(len(point)),
    "0x04 and zeros": lambda point: b"\4" + bytes(len(point) - 1),
    "0x04 and ones": lambda point: b"\4" + b"\xff" * (len(point) - 1),
    "short": lambda point: point[:-1],
    "long": lambda point: point + b"\0",
    "raw": lambda point: point[1:],
    "compressed": lambda point: bytes([2 + point[-1] % 2]) + point[1 : (len(point) + 1) // 2],
    "hybrid": lambda point: bytes([6 + point[-1] % 2]) + point[1:],
    "off the curve": lambda point: point[:-1] + bytes([point[-1] ^ 1]),
    **{f"leading byte {value}": leading_byte(value) for value in (0, 1, 2, 3, 5, 6, 7, 255)},
}


@pytest.mark.parametrize("curve", [P256, ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: str(c.name))
@pytest.mark.parametrize("edit", BAD_POINTS.values(), ids=BAD_POINTS.keys())
def test_bad_points(curve: ec.EllipticCurve, edit: Callable[[bytes], bytes]) -> None:
    point = edit(delivery.public_point(ec.derive_private_key(1234567, curve)))
    with pytest.raises(InvalidPoint):
        delivery.check_point(point, curve)


def test_a_point_of_another_curve_of_that_size() -> None:
    point = delivery.public_point(ec.derive_private_key(1234567, ec.SECP256K1()))
    with pytest.raises(InvalidPoint):
        delivery.check_point(point, P256)


@given(st.binary(min_size=64, max_size=64))
def test_points_at_random(coordinates: bytes) -> None:
    with pytest.raises(InvalidPoint):
        delivery.check_point(b"\4" + coordinates, P256)


def test_a_worker_imports_no_cryptography_for_a_binding() -> None:
    program = "import sys, keycustody.formats.delivery; sys.exit('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 0
