"""Session keys: made, wrapped, unwrapped and sealed inside the token. docs/format.md 3 to 5.

Delivered sealed, a session key is a sensitive object from its making to its end, and this process
holds only what it is wrapped as. Z is derived once a request, T for each item. Every wrapped key
that does not open gets one and the same answer.
"""

import contextlib
import hmac
from dataclasses import dataclass
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.algorithms import Purpose
from keycustody.errors import KeyNotTrusted, UnsupportedByToken, WrappedKeyRejected
from keycustody.formats import delivery, wrapped_key
from keycustody.formats.suites import check_suite
from keycustody.token.api import (
    Delivered,
    Fault,
    GenerateSessionKey,
    Outputs,
    Recipient,
    RewrapSessionKeys,
    SessionKey,
    Unwrapped,
    UnwrapSessionKeys,
)
from keycustody.token.hsm.failures import BAD_WRAPPING
from keycustody.token.hsm.keys import KeyRing
from keycustody.token.hsm.loaded import LoadedKey
from keycustody.token.hsm.operations import require, tag
from keycustody.token.hsm.transient import Transient
from keycustody.token.profiles import Profile

REJECTED = Fault(
    WrappedKeyRejected.code,
    "The wrapped key was not made by this key version for this context.",
)


@dataclass(frozen=True, slots=True)
class _Counter:
    """Where session keys are handed over: `agreed` is Z, or None for plain delivery."""

    transient: Transient
    request: GenerateSessionKey | UnwrapSessionKeys
    agreed: Any
    point: bytes

    @property
    def sensitive(self) -> bool:
        return self.agreed is not None

    def deliver(self, session_key: Any, wrapped: bytes) -> Delivered:
        """Hand over a session key, bound to this request and to its wrapped form."""
        if self.agreed is None:
            return Delivered(plain=self.transient.value(session_key))
        request = self.request
        bound = delivery.binding(
            request.suite,
            self.point,
            request.recipient.client_point,
            request.name,
            request.version,
            request.context_hash,
            wrapped,
        )
        transport = self.transient.transport_key(self.agreed, bound)
        return Delivered(
            sealed=self.transient.wrap(transport, session_key), delivery_point=self.point
        )


def perform(
    key: LoadedKey,
    request: GenerateSessionKey | UnwrapSessionKeys | RewrapSessionKeys,
    ring: KeyRing,
    session: pkcs11.Session,
    profile: Profile,
) -> SessionKey | Unwrapped | Outputs:
    """Do one request, with the key version that it is about."""
    match request:
        case GenerateSessionKey():
            return generate(key, request, ring, session, profile)
        case UnwrapSessionKeys():
            return unwrap(key, request, ring, session, profile)
        case RewrapSessionKeys():
            return rewrap(key, request, ring, session, profile)


def generate(
    key: LoadedKey,
    request: GenerateSessionKey,
    ring: KeyRing,
    session: pkcs11.Session,
    profile: Profile,
) -> SessionKey:
    """Make one session key, wrapped for storage and delivered for use."""
    _check(key, request.name, request.version, request.suite)
    with Transient(session, profile) as transient:
        counter = _counter(transient, request, ring, profile)
        session_key = transient.session_key(sensitive=counter.sensitive)
        kw = transient.wrap(key.wrapping, session_key)
        wrapped = wrapped_key.join(kw, tag(key, _bound(request, kw), profile))
        return SessionKey(wrapped, counter.deliver(session_key, wrapped))


def unwrap(
    key: LoadedKey,
    request: UnwrapSessionKeys,
    ring: KeyRing,
    session: pkcs11.Session,
    profile: Profile,
) -> Unwrapped:
    """Verify each tag, and only then unwrap and deliver."""
    _check(key, request.name, request.version, request.suite)

    with Transient(session, profile) as outer:
        counter = _counter(outer, request, ring, profile)

        def one(wrapped: bytes) -> Delivered | Fault:
            kw = _verified(key, request, wrapped, profile)
            if kw is None:
                return REJECTED
            # Its own scope: a thousand items would otherwise be on the token at once.
            with Transient(session, profile) as inner:
                at = _Counter(inner, request, counter.agreed, counter.point)
                session_key = _unwrapped(inner, key, kw, sensitive=at.sensitive)
                return REJECTED if session_key is None else at.deliver(session_key, wrapped)

        return Unwrapped([one(wrapped) for wrapped in request.wrapped])


def rewrap(
    key: LoadedKey,
    request: RewrapSessionKeys,
    ring: KeyRing,
    session: pkcs11.Session,
    profile: Profile,
) -> Outputs:
    """Verify each tag, and only then unwrap and wrap again. Wrapping and tags are deterministic:
    the same request gives the same bytes."""
    _check(key, request.name, request.version, request.suite)
    target = ring.get(request.target)
    _check(target, request.name, request.target_version, request.suite)

    def one(wrapped: bytes) -> bytes | Fault:
        kw = _verified(key, request, wrapped, profile)
        if kw is None:
            return REJECTED
        with Transient(session, profile) as transient:
            session_key = _unwrapped(transient, key, kw, sensitive=True)
            if session_key is None:
                return REJECTED
            moved = transient.wrap(target.wrapping, session_key)
        bound = wrapped_key.binding(
            request.suite, request.name, request.target_version, request.context_hash, moved
        )
        return wrapped_key.join(moved, tag(target, bound, profile))

    return Outputs([one(wrapped) for wrapped in request.wrapped])


def _check(key: LoadedKey, name: str, version: int, suite: int) -> None:
    """Refuse what would bind a session key to another version than the one that wraps it."""
    require(key, Purpose.WRAP)
    check_suite(suite)
    if key.ref.label != f"{name}.v{version}":
        raise KeyNotTrusted(f"Key {key.ref.label!r} does not serve version {version} of {name!r}.")


def _verified(
    key: LoadedKey,
    request: UnwrapSessionKeys | RewrapSessionKeys,
    wrapped: bytes,
    profile: Profile,
) -> bytes | None:
    """Return KW if its tag says that this version made it for this context."""
    try:
        kw, claimed = wrapped_key.split(wrapped)
    except WrappedKeyRejected:
        return None
    fits = hmac.compare_digest(tag(key, _bound(request, kw), profile), claimed)
    return kw if fits else None


def _unwrapped(transient: Transient, key: LoadedKey, kw: bytes, *, sensitive: bool) -> Any:
    """Unwrap what the token itself tagged; None if it does not, believed the second time."""
    for _ in range(2):
        with contextlib.suppress(*BAD_WRAPPING):
            return transient.unwrap(key.wrapping, kw, sensitive=sensitive)
    return None


def _bound(request: GenerateSessionKey | UnwrapSessionKeys | RewrapSessionKeys, kw: bytes) -> bytes:
    return wrapped_key.binding(
        request.suite, request.name, request.version, request.context_hash, kw
    )


def _counter(
    transient: Transient,
    request: GenerateSessionKey | UnwrapSessionKeys,
    ring: KeyRing,
    profile: Profile,
) -> _Counter:
    recipient: Recipient = request.recipient
    if recipient.delivery is None:
        return _Counter(transient, request, None, b"")
    if not profile.sealed_delivery:
        raise UnsupportedByToken(f"Tokens of profile {profile.name} cannot seal session keys.")
    delivery.check_point(recipient.client_point, ec.SECP256R1())
    holder = ring.get(recipient.delivery)
    require(holder, Purpose.AGREE)
    if holder.ref.algorithm != "EC_P256":
        raise KeyNotTrusted(f"Key {holder.ref.label!r} is not a P-256 key for delivery.")
    agreed = transient.agreement(holder.private, recipient.client_point)
    return _Counter(transient, request, agreed, holder.point)
