"""Session keys: made and wrapped by the token for one context, delivered to whoever asked.

The wrong context, key, version or a changed wrapped key is refused by the tag that the token made
(docs/format.md, 4); the agent never sees a session key unless delivery is plain, which needs the
operator's and the client's consent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.config import LeaseSettings
from keycustody.custody.items import spread
from keycustody.custody.keys.key import Key, Version
from keycustody.custody.operation import Caller, Desk
from keycustody.custody.usage import moved_to
from keycustody.errors import (
    DeliveryRejected,
    InvalidRequest,
    UnsupportedByToken,
    WrappedKeyRejected,
)
from keycustody.formats import context as contexts
from keycustody.formats.delivery import check_point
from keycustody.formats.suites import SUITE_1, WRAPPED_BYTES
from keycustody.token.api import (
    Delivered,
    Fault,
    GenerateSessionKey,
    Recipient,
    RewrapSessionKeys,
    UnwrapSessionKeys,
)

REJECTED = "The wrapped key was not made by this key version for this context."


@dataclass(frozen=True, slots=True)
class Client:
    """Who gets the session keys: an ephemeral point, and whether clear text is accepted."""

    point: bytes
    accept_plain: bool


@dataclass(frozen=True, slots=True)
class Generated:
    """A new session key."""

    version: int
    wrapped: bytes
    delivered: Delivered
    lease: LeaseSettings


@dataclass(frozen=True, slots=True)
class Order:
    """Wrapped keys of one version of a key, all bound to one context."""

    key: str
    version: int
    suite: int
    context: Mapping[str, str]
    wrapped: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What became of each wrapped key."""

    results: Sequence[Delivered | Fault]
    lease: LeaseSettings


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of each wrapped key, and the version that wraps them now."""

    version: int
    results: Sequence[bytes | Fault]


async def generate(
    desk: Desk, caller: Caller, key: str, suite: int, context: Mapping[str, str], client: Client
) -> Generated:
    """Make a session key under the newest version of a `wrap` key."""
    async with desk.operation(caller, "generate", key=key, context=context) as entry:
        version = desk.admit(caller, entry).version(0, "generate")
        entry.version = version.number
        request = GenerateSessionKey(
            version.ref,
            key,
            version.number,
            _known(suite),
            contexts.digest(contexts.encode(context)),
            _recipient(desk, client),
        )
        answer = await entry.call(request)
        entry.note_items([answer.wrapped], [answer.delivered])
        lease = desk.rules.keys[key].lease
        return Generated(version.number, answer.wrapped, answer.delivered, lease)


async def unwrap(desk: Desk, caller: Caller, order: Order, client: Client) -> Unwrapped:
    """Unwrap each wrapped key and deliver it."""
    async with desk.operation(caller, "unwrap", key=order.key, context=order.context) as entry:
        found = desk.admit(caller, entry, count=len(order.wrapped), wrapped=order.wrapped)
        desk.check_count(len(order.wrapped))
        version = _named(found, order, "unwrap")
        entry.version = version.number
        suite = _known(order.suite)
        context_hash = contexts.digest(contexts.encode(order.context))
        recipient = _recipient(desk, client)

        async def ask(part: list[bytes]) -> list[Delivered | Fault]:
            request = UnwrapSessionKeys(
                version.ref, order.key, version.number, suite, context_hash, part, recipient
            )
            return (await entry.call(request)).items

        results = await spread([_sized(wrapped) for wrapped in order.wrapped], ask)
        entry.note_items(order.wrapped, results)
        return Unwrapped(results, desk.rules.keys[order.key].lease)


async def rewrap(desk: Desk, caller: Caller, order: Order) -> Rewrapped:
    """Wrap each session key under the newest version, inside the token; deliver nothing."""
    async with desk.operation(caller, "rewrap", key=order.key, context=order.context) as entry:
        found = desk.admit(caller, entry, count=len(order.wrapped))
        desk.check_count(len(order.wrapped))
        version = _named(found, order, "rewrap")
        entry.version = version.number
        target = _target(version, found.version(0, "generate"))
        entry.detail = moved_to(target.number)
        suite = _known(order.suite)
        context_hash = contexts.digest(contexts.encode(order.context))

        async def ask(part: list[bytes]) -> list[bytes | Fault]:
            request = RewrapSessionKeys(
                version.ref,
                target.ref,
                order.key,
                version.number,
                target.number,
                suite,
                context_hash,
                part,
            )
            return (await entry.call(request)).items

        results = await spread([_sized(wrapped) for wrapped in order.wrapped], ask)
        entry.note_items(order.wrapped, results)
        return Rewrapped(target.number, results)


def _named(found: Key, order: Order, operation: str) -> Version:
    if order.version == 0:
        raise InvalidRequest("Name the version that wrapped the session keys.")
    return found.version(order.version, operation)


def _target(version: Version, newest: Version) -> Version:
    """Return what to wrap under: never an older version. Another agent may already use one that
    this agent does not make keys with yet; the answer is then what was asked about, unchanged."""
    return version if version.number > newest.number else newest


def _known(suite: int) -> int:
    if suite != SUITE_1:
        raise InvalidRequest(f"Suite {suite} is not known; this agent has suite {SUITE_1}.")
    return suite


def _sized(wrapped: bytes) -> bytes | Fault:
    if len(wrapped) == WRAPPED_BYTES:
        return wrapped
    # The same answer as for one that does not verify: nothing more is learned from it.
    return Fault(WrappedKeyRejected.code, REJECTED)


def _recipient(desk: Desk, client: Client) -> Recipient:
    """Return to whom, and how; refuses to deliver in clear unless both sides agreed to that."""
    check_point(client.point, ec.SECP256R1())
    delivery = desk.catalogue.current().delivery
    if delivery is not None:
        return Recipient(client.point, delivery.ref)
    if not desk.plain_delivery:
        raise UnsupportedByToken(
            "This token cannot seal session keys; the agent's settings would have to say "
            '`delivery = "plain"`.'
        )
    if not client.accept_plain:
        raise DeliveryRejected(
            "This token cannot seal session keys; a client that accepts them in clear must say so."
        )
    return Recipient(client.point, None)
