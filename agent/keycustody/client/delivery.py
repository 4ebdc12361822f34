"""The client's end of sealed delivery: one `Receiver` for each call (docs/format.md section 5).

The binding is computed from what was *asked*; an answer spliced from another request does not open
and is a `DeliveryRejected`. A key in clear is refused unless the caller accepted that beforehand.
Where the caller knows the token, nothing of another one's is taken: `TokenNotTrusted`.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.client.known_tokens import KnownToken
from keycustody.errors import DeliveryRejected, TokenNotTrusted
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
class Terms:
    """What a client accepts: session keys in clear or not, and, where it is known, whose."""

    accept_plain: bool = False
    token: KnownToken | None = None


@dataclass(frozen=True, slots=True)
class Receiver:
    """An ephemeral key for one call, and how to open what is delivered to it."""

    ephemeral: ec.EllipticCurvePrivateKey = field(repr=False)
    point: bytes
    terms: Terms

    @classmethod
    def new(cls, terms: Terms) -> "Receiver":
        """A receiver with a new P-256 key."""
        ephemeral = ec.generate_private_key(_CURVE)
        return cls(ephemeral, delivery.public_point(ephemeral), terms)

    def open(
        self,
        delivered: sessions.DeliveredKey,
        name: str,
        version: int,
        context_hash: bytes,
        wrapped: bytes,
    ) -> SecretKey:
        """The session key in an answer. Raises `DeliveryRejected` and `TokenNotTrusted`."""
        match delivered.WhichOneof("delivery"):
            case "sealed":
                return self._sealed(delivered, name, version, context_hash, wrapped)
            case "plain":
                return self._plain(delivered.plain, version, wrapped)
            case _:
                raise DeliveryRejected("The agent's answer holds no session key.")

    def _sealed(
        self,
        delivered: sessions.DeliveredKey,
        name: str,
        version: int,
        context_hash: bytes,
        wrapped: bytes,
    ) -> SecretKey:
        token = self.terms.token
        if token is not None:
            token.check(delivered.delivery_point)
        opened = delivery.open_sealed(
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
        if token is not None:
            token.accept(delivered.delivery_point)
        return SecretKey(opened)

    def _plain(self, key: bytes, version: int, wrapped: bytes) -> SecretKey:
        if self.terms.token is not None:
            raise TokenNotTrusted(
                "The agent delivered a session key in clear, and the token's delivery key was "
                "asked for: nothing shows which token the key comes from."
            )
        if not self.terms.accept_plain:
            raise DeliveryRejected(
                "The agent delivered a session key in clear, which this client did not accept; "
                "connect(accept_plain=True) would, where the token cannot seal."
            )
        if (len(key), len(wrapped)) != (SESSION_KEY_BYTES, WRAPPED_BYTES) or version < VERSION_MIN:
            raise DeliveryRejected("The delivered session key or its wrapped form is not valid.")
        return SecretKey(key)
