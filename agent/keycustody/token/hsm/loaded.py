"""A key version that has proven itself, as operations get it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from keycustody.algorithms import KeyAlgorithm
from keycustody.errors import KeyNotTrusted
from keycustody.token.api import KeyRef


@dataclass(frozen=True)
class LoadedKey:
    """A key that has proven itself. `handles` are its objects by kind and key type; `public_key` is
    DER, empty for `wrap`."""

    ref: KeyRef
    algorithm: KeyAlgorithm
    handles: dict[tuple[str, str], Any]
    public_key: bytes

    @cached_property
    def private(self) -> Any:
        """The private key."""
        return next(handle for (kind, _), handle in self.handles.items() if kind == "private")

    @cached_property
    def point(self) -> bytes:
        """The uncompressed point of an EC key. Raises `KeyNotTrusted` for any other."""
        public = load_der_public_key(self.public_key)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise KeyNotTrusted(f"Key {self.ref.label!r} is not an elliptic-curve key.")
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def wrapping(self) -> Any:
        """The AES key of a `wrap` version."""
        return self.handles["secret", "AES"]

    @property
    def mac(self) -> Any:
        """The HMAC key of a `wrap` version."""
        return self.handles["secret", "GENERIC_SECRET"]
