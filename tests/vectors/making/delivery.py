"""Makes delivery.json."""

import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vectors.making.spec import (
    TENANT,
    Json,
    Pairs,
    context_hash,
    encode_context,
    flip,
    lp16,
    made,
    wrap,
)


def delivery_file() -> Json:
    positive: list[tuple[str, str, int, Pairs]] = [
        ("a context of two pairs", "orders", 1, TENANT),
        ("the empty context", "orders", 1, []),
        ("the longest name and the highest version", "a0._-" * 12 + "zzzz", 2**32 - 1, TENANT),
    ]
    valid = [delivery_vector(*vector) for vector in positive]
    first, other = valid[0], valid[1]
    sealed = bytes.fromhex(first["sealed"])
    point = bytes.fromhex(first["delivery_point"])
    changes: list[tuple[str, Json]] = [
        ("another key name", {"key": "orderz"}),
        ("another version", {"version": 2}),
        ("version 0", {"version": 0}),
        ("another context", {"context_hash": other["context_hash"]}),
        ("another wrapped key", {"wrapped": other["wrapped"]}),
        ("an unknown suite", {"suite": 2}),
        ("another delivery point", {"delivery_point": other["delivery_point"]}),
        ("another client point", {"client_point": other["client_point"]}),
        ("another client", {"ephemeral_private": other["ephemeral_private"]}),
        ("sealed for another request", {"sealed": other["sealed"]}),
        ("the first bit", {"sealed": flip(sealed, 0).hex()}),
        ("the last bit", {"sealed": flip(sealed, 39).hex()}),
        ("not sealed at all", {"sealed": first["session_key"]}),
        ("39 bytes", {"sealed": sealed[:-1].hex()}),
        ("48 bytes", {"sealed": (sealed + bytes(8)).hex()}),
        ("no bytes", {"sealed": ""}),
        ("a wrapped key of 71 bytes", {"wrapped": first["wrapped"][:-2]}),
        ("a delivery point off the curve", {"delivery_point": flip(point, 64).hex()}),
        ("no delivery point", {"delivery_point": ""}),
    ]
    asked = (
        "suite",
        "key",
        "version",
        "context_hash",
        "ephemeral_private",
        "client_point",
        "delivery_point",
        "wrapped",
        "sealed",
    )
    return {
        "format": "delivery",
        "open": valid,
        "refuse": [
            {
                "id": name,
                **{member: change.get(member, first[member]) for member in asked},
                "error": "DELIVERY_REJECTED",
            }
            for name, change in changes
        ],
        "refuse_point": [
            {"id": name, "point": bad.hex(), "error": "INVALID_POINT"}
            for name, bad in bad_points(point)
        ],
    }


def delivery_vector(name: str, key: str, version: int, pairs: Pairs) -> Json:
    agent = private_key(f"delivery key: {name}")
    client = private_key(f"ephemeral key: {name}")
    session_key = made(f"session key: {name}")
    context = encode_context(pairs)
    wrapped = wrap(session_key, key, version, context)
    shared = agent.exchange(ec.ECDH(), client.public_key())
    bound = hashlib.sha256(
        b"keycustody.delivery.v1\0"
        + struct.pack(">H", 1)
        + point_of(agent)
        + point_of(client)
        + lp16(key.encode())
        + struct.pack(">I", version)
        + context_hash(context)
        + hashlib.sha256(wrapped).digest()
    ).digest()
    encryptor = Cipher(algorithms.AES(shared), modes.ECB()).encryptor()  # noqa: S305 - as specified
    transport = encryptor.update(bound) + encryptor.finalize()
    return {
        "id": name,
        "suite": 1,
        "key": key,
        "version": version,
        "context": pairs,
        "context_hash": context_hash(context).hex(),
        "delivery_private": scalar(agent),
        "delivery_point": point_of(agent).hex(),
        "ephemeral_private": scalar(client),
        "client_point": point_of(client).hex(),
        "wrapped": wrapped.hex(),
        "z": shared.hex(),
        "binding": bound.hex(),
        "t": transport.hex(),
        "sealed": aes_key_wrap(transport, session_key).hex(),
        "session_key": session_key.hex(),
    }


def private_key(label: str) -> ec.EllipticCurvePrivateKey:
    # A SHA-256 is below the order of P-256 but for one in 2**32, and these labels were tried.
    return ec.derive_private_key(int.from_bytes(made(label)), ec.SECP256R1())


def scalar(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_numbers().private_value.to_bytes(32).hex()


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def bad_points(good: bytes) -> list[tuple[str, bytes]]:
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    # x = 0 is on P-256, so its unreduced twin x = p would be the same point in a second encoding.
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow(b, (prime + 1) // 4, prime).to_bytes(32)
    parity = 2 + (good[64] & 1)
    return [
        ("no bytes", b""),
        ("infinity", b"\0"),
        ("infinity, in 65 bytes", bytes(65)),
        ("0x04 and zeros", b"\4" + bytes(64)),
        ("off the curve", flip(good, 64)),
        ("compressed", bytes([parity]) + good[1:33]),
        ("hybrid", bytes([parity + 4]) + good[1:]),
        ("64 bytes, without 0x04", good[1:]),
        ("64 bytes", good[:-1]),
        ("66 bytes", good + b"\0"),
        ("in a DER OCTET STRING", b"\4\x41" + good),
        ("a coordinate that is not reduced", b"\4" + prime.to_bytes(32) + y),
        ("a point of P-384", point_of_p384()),
    ]


def point_of_p384() -> bytes:
    return point_of(ec.derive_private_key(int.from_bytes(made("P-384")), ec.SECP384R1()))
