"""The session key of a session: held within its lease, and renewed before it ends. No I/O.

It never enters the cache that decryption uses: whoever may only generate session keys does not
decrypt with them by accident.

A session key is renewed beside the messages that it still serves. While that fails the session goes
on and is `degraded`; once the lease ended it raises `LeaseEnded`, and goes on when the agent is
back.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from keycustody.client import calls
from keycustody.client.calls import Flow, ask
from keycustody.client.delivery import Terms
from keycustody.client.envelopes import Sealer
from keycustody.client.flows import Operations, leased
from keycustody.client.leases import Lease, Leases
from keycustody.client.process import Home
from keycustody.errors import (
    AgentGone,
    AgentUnreachable,
    DeadlineExceeded,
    KeycustodyError,
    SessionEnded,
    TokenUnavailable,
)
from keycustody.formats import context as contexts
from keycustody.formats import names
from keycustody.formats.envelope import Header
from keycustody.formats.suites import SUITE_1

_ONLY: Final = "session"
#: A session key is renewed when less than this fraction of its lease is left.
_AHEAD: Final = 0.2
_log = logging.getLogger(__name__)


class LeaseEnded(SessionEnded):
    """The session's lease ended while the agent was away. The session goes on when it is back."""

    retryable = True


class SessionKeys:
    """The session key in use, and how the next one is got. Thread-safe, no I/O."""

    def __init__(
        self,
        key: str,
        context: Mapping[str, str],
        *,
        clock: Callable[[], float],
        terms: Terms,
    ) -> None:
        names.check_key_name(key)
        self.key = key
        self.encoded_context = contexts.encode(context)
        self._terms = terms
        self._held: Leases[str, Sealer] = Leases(clock, capacity=1, ahead=_AHEAD)
        self._home = Home()
        #: Why the session key could not be renewed, while it serves on; else None.
        self.degraded: KeycustodyError | None = None

    def __str__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"key={self.key!r} context={self.context!r} {state}"

    @property
    def context(self) -> dict[str, str]:
        """The context that each envelope carries."""
        return contexts.decode(self.encoded_context)

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._held.closed

    def open(self) -> Flow[None]:
        """Fetch the first session key."""
        self._home.check()
        if not self._held.claim(_ONLY, 0).value:
            try:
                sealer, lease = yield from self._fetch()
            except BaseException:
                self._held.abandon(_ONLY)
                raise
            self._held.fill(_ONLY, sealer, lease)

    def ready(self, size: int) -> Sealer | None:
        """The session key, if one is held, its lease allows a message of `size` bytes, and the
        next is not due."""
        self._home.check()
        return self._held.take(_ONLY, size)

    def sealer(self, size: int) -> Flow[Sealer]:
        """The session key for a message of `size` bytes; a new one where the lease is used up.

        Raises `SessionEnded` once the session is closed, and `LeaseEnded`.
        """
        self._home.check()
        if self.closed:
            raise SessionEnded("The session is closed; open another.")
        try:
            return (yield from leased(self._held, _ONLY, size, self._renew))
        except KeycustodyError as error:
            if not _away(error):
                raise
            raise LeaseEnded(
                "The session's lease ended while the agent was away, and its key is not used any "
                f"more; the session goes on when the agent is back. {error.message}",
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error

    def charge(self, size: int) -> None:
        """Count bytes whose number was not known beforehand."""
        self._held.charge(_ONLY, size)

    def close(self) -> None:
        """Forget the session key. Idempotent."""
        if self._home.here:  # the lock may have been somebody's when this process was forked
            self._held.close()

    def _renew(self) -> Flow[tuple[Sealer, Lease]]:
        try:
            renewed = yield from self._fetch()
        except KeycustodyError as error:
            if self.degraded is None and not self.closed:
                _log.warning(
                    "A session key of %r could not be renewed before its lease ends: %s",
                    self.key,
                    error.message,
                )
            self.degraded = error
            raise
        if self.degraded is not None:
            _log.info("A session key of %r was renewed again.", self.key)
        self.degraded = None
        return renewed

    def _fetch(self) -> Flow[tuple[Sealer, Lease]]:
        call = calls.generate(
            self.key,
            contexts.decode(self.encoded_context),
            contexts.digest(self.encoded_context),
            terms=self._terms,
        )
        new = yield from ask(call)
        header = Header(SUITE_1, self.key, self.encoded_context, new.version, new.wrapped)
        return Sealer(header, new.key), new.lease


def _away(error: KeycustodyError) -> bool:
    """Whether agent or token are away: no refusal, and no quota that is used up."""
    if isinstance(error, AgentUnreachable):
        return error.away
    return isinstance(error, AgentGone | DeadlineExceeded | TokenUnavailable)


def opened(operations: Operations, key: str, context: Mapping[str, str]) -> Flow[SessionKeys]:
    """A session's first key, so that what is wrong is known at once."""
    keys = SessionKeys(key, context, clock=operations.clock, terms=operations.terms)
    yield from keys.open()
    return keys
