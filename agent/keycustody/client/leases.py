"""What may be used for a while: session keys, each for as long as its lease says.

A `Leases` maps what identifies a thing to the thing, and counts its use against the lease that came
with it: seconds, messages, bytes. What is used up or too old is forgotten. It does no I/O: `claim`
says who has to fetch what is missing, so that many threads or tasks that miss the same thing fetch
it once.

Rules:

* Never more entries than `capacity`; the one that was used longest ago goes first.
* Nothing is handed out beyond its lease, with one exception: what was just fetched serves the use
  that it was fetched for, even if that alone is more than the lease. One file has one session key.
* With `ahead`, a fraction, what is nearly used up is used on, and one user is told to fetch the
  next: when less than that fraction of its seconds, messages or bytes is left. If that fails, it is
  due again after that fraction of what time is left, a second at least.
* Old entries are dropped at the next use of the `Leases`; no timer runs.
* Thread-safe. Nothing in it has a `repr` that shows a key.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Lease:
    """How long (seconds from arrival), for how many messages or files, and for how many bytes of
    plaintext a session key may be used. A zero allows nothing beyond the first use."""

    seconds: int
    messages: int
    bytes: int


#: What is not fetched anew at once after it failed.
_RENEWAL_PAUSE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    expires: float
    messages: int
    bytes: int
    #: The next is due from this time on, or with fewer messages or bytes left than these.
    due: float
    few_messages: float
    few_bytes: float


@dataclass(frozen=True, slots=True)
class Claim(Generic[V]):
    """`value`: use it. `pending`: somebody fetches it, wait and claim again. Neither, or with
    `due`: it is yours to fetch, and you MUST call `fill` or `abandon`."""

    value: V | None = None
    pending: "Future[None] | None" = None
    due: bool = False


class Leases(Generic[K, V]):
    """See the module. `clock` returns seconds and never goes back."""

    def __init__(self, clock: Callable[[], float], capacity: int, *, ahead: float = 0.0) -> None:
        self._clock = clock
        self._capacity = capacity
        self._ahead = ahead
        self._lock = Lock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._pending: dict[K, Future[None]] = {}
        self._closed = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def take(self, ident: K, size: int) -> V | None:
        """Use the entry for one message of `size` bytes; None if there is none that allows it, or
        the next is due: then claim it."""
        with self._lock:
            return None if self._due(ident) else self._take(ident, size)

    def take_new(self, ident: K, size: int) -> V | None:
        """As `take`, by who has just filled it, and whether the next is due or not."""
        with self._lock:
            return self._take(ident, size)

    def claim(self, ident: K, size: int) -> Claim[V]:
        """As `take`, and decide who fetches what is missing."""
        with self._lock:
            due = self._due(ident)
            value = self._take(ident, size)
            if value is not None:
                if due:
                    self._pending[ident] = Future()
                return Claim(value=value, due=due)
            if ident in self._pending:
                return Claim(pending=self._pending[ident])
            self._pending[ident] = Future()
            return Claim()

    def fill(self, ident: K, value: V, lease: Lease) -> None:
        """Hold what was fetched after a `claim`, unused so far, and let the others go on."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            if not self._closed:
                entry = _Entry(
                    value,
                    now + lease.seconds,
                    lease.messages,
                    lease.bytes,
                    now + lease.seconds * (1 - self._ahead),
                    lease.messages * self._ahead,
                    lease.bytes * self._ahead,
                )
                self._entries[ident] = entry
                self._entries.move_to_end(ident)
                while len(self._entries) > self._capacity:
                    self._entries.popitem(last=False)
        self._release(ident)

    def abandon(self, ident: K) -> None:
        """Say that a claimed fetch failed; one of those that wait will try in its turn."""
        with self._lock:
            entry = self._entries.get(ident)
            if entry is not None:
                now = self._clock()
                pause = max(_RENEWAL_PAUSE_SECONDS, (entry.expires - now) * self._ahead)
                entry.due, entry.few_messages, entry.few_bytes = now + pause, 0, 0
        self._release(ident)

    def charge(self, ident: K, size: int) -> None:
        """Count bytes whose number was not known when they were taken, such as a pipe's."""
        with self._lock:
            entry = self._entries.get(ident)
            if entry is not None:
                entry.bytes -= size

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        with self._lock:
            self._closed = True
            self._entries.clear()

    def _take(self, ident: K, size: int) -> V | None:
        entry = self._entries.get(ident)
        if entry is None:
            return None
        if entry.messages < 1 or entry.bytes < size or self._clock() >= entry.expires:
            del self._entries[ident]
            return None
        entry.messages -= 1
        entry.bytes -= size
        self._entries.move_to_end(ident)
        return entry.value

    def _due(self, ident: K) -> bool:
        """Whether somebody should fetch the next, and nobody does."""
        if not self._ahead:
            return False
        entry = self._entries.get(ident)
        return (
            entry is not None
            and ident not in self._pending
            and (
                self._clock() >= entry.due
                or entry.messages <= entry.few_messages
                or entry.bytes <= entry.few_bytes
            )
        )

    def _sweep(self, now: float) -> None:
        for ident in [key for key, entry in self._entries.items() if now >= entry.expires]:
            del self._entries[ident]

    def _release(self, ident: K) -> None:
        with self._lock:
            future = self._pending.pop(ident, None)
        if future is not None:
            future.set_result(None)
