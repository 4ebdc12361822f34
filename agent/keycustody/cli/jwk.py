"""A public key as a JWK (RFC 7517, RFC 7518 section 6, RFC 8037)."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.errors import InvalidRequest

#: RFC 7517, 4.2: what the key is for. `agree` has none of its own and counts as encryption.
_USE = {"sign": "sig", "agree": "enc", "decrypt": "enc"}


def of(key: PublicKeyTypes, purpose: str) -> dict[str, str]:
    """The JWK; `kid` is its RFC 7638 thumbprint (SHA-256)."""
    members = _members(key)
    # The thumbprint is over the required members only, sorted and without white space.
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    kid = _base64url(hashlib.sha256(canonical).digest())
    return members | {"use": _USE[purpose], "kid": kid}


def _members(key: PublicKeyTypes) -> dict[str, str]:
    match key:
        case ec.EllipticCurvePublicKey():
            numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8
            return {
                "kty": "EC",
                "crv": f"P-{key.curve.key_size}",
                "x": _base64url(numbers.x.to_bytes(size)),
                "y": _base64url(numbers.y.to_bytes(size)),
            }
        case ed25519.Ed25519PublicKey():
            raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
            return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}
        case rsa.RSAPublicKey():
            public = key.public_numbers()
            return {"kty": "RSA", "n": _integer(public.n), "e": _integer(public.e)}
    raise InvalidRequest("This kind of public key has no JWK here.")


def _integer(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
