"""The client's end of sealed delivery: one `Receiver` for each call (docs/format.md section 5).

The binding is computed from what was *asked*; an answer spliced from another request does not open
and is a `DeliveryRejected`. A key in clear is refused unless the caller accepted that beforehand.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.errors import DeliveryRejected
from keycustody.formats import delivery
from keycustody.formats.names import VERSION_MIN
from keycustody.formats.suites import SESSION_KEY_BYTES, SUITE_1, WRAPPED_BYTES
from keycustody.v1 import session_key_service_pb2 as sessions

_CURVE: Final = ec.SECP256R1()


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A session key that no `repr` shows. Python cannot wipe it; it is forgotten, not erased."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """An ephemeral key for one call, and how to open what is delivered to it."""

    ephemeral: ec.EllipticCurvePrivateKey = field(repr=False)
    point: bytes
    accept_plain: bool

    @classmethod
    def new(cls, accept_plain: bool) -> "Receiver":
        """A receiver with a new P-256 key."""
        ephemeral = ec.generate_private_key(_CURVE)
        return cls(ephemeral, delivery.public_point(ephemeral), accept_plain)

    def open(
        self,
        delivered: sessions.DeliveredKey,
        name: str,
        version: int,
        context_hash: bytes,
        wrapped: bytes,
    ) -> SecretKey:
        """The session key in an answer. Raises `DeliveryRejected`."""
        match delivered.WhichOneof("delivery"):
            case "sealed":
                return SecretKey(
                    delivery.open_sealed(
                        self.ephemeral,
                        delivered.sealed,
                        delivery_point=delivered.delivery_point,
                        client_point=self.point,
                        suite=SUITE_1,
                        name=name,
                        version=version,
                        context_hash=context_hash,
                        wrapped=wrapped,
                    )
                )
            case "plain":
                return self._plain(delivered.plain, version, wrapped)
            case _:
                raise DeliveryRejected("The agent's answer holds no session key.")

    def _plain(self, key: bytes, version: int, wrapped: bytes) -> SecretKey:
        if not self.accept_plain:
            raise DeliveryRejected(
                "The agent delivered a session key in clear, which this client did not accept; "
                "connect(accept_plain=True) would, where the token cannot seal."
            )
        if (len(key), len(wrapped)) != (SESSION_KEY_BYTES, WRAPPED_BYTES) or version < VERSION_MIN:
            raise DeliveryRejected("The delivered session key or its wrapped form is not valid.")
        return SecretKey(key)
