"""Admission: how much may be asked of the agent at once, by one principal and by all together.

Three things are bounded: requests that were accepted and are not over, bytes of requests and
answers that are held for them, and how many are worked at. Beyond the first two a request is
refused at once (`Overloaded`), with the time after which to try again; the third has them wait
their turn (`keycustody.custody.turns`). A request whose turn has not come has not been read: what
waits is a call, and its bytes are still the caller's.

A request counts until its answer was taken, so that callers that ask and do not read fill their own
principal's share and nobody else's. A refusal is counted and logged, and has no audit record:
nothing was decided, and nothing done. docs/reliability.md has the numbers, docs/adr/0026 the
reasons.
"""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from keycustody.config import Limits, Settings
from keycustody.custody.turns import Turns, Waited
from keycustody.errors import Overloaded

#: Seconds to wait that callers are told: no sooner and no later than these.
_SOONEST, _LATEST = 0.05, 2.0
#: Requests answered in a second, until it is known.
_FIRST_RATE = 1000.0
#: Seconds over which that is measured, and between two log lines on one principal's refusals.
_MEASURED, _LOGGED = 1.0, 10.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Load:
    """What is accepted and not over."""

    requests: int = 0
    bytes: int = 0


class Admission:
    """Decides what is accepted. A part that follows a reload."""

    def __init__(self, limits: Limits, waited: Waited) -> None:
        self._limits = limits
        self.turns = Turns(limits.concurrency, limits.concurrency_per_principal, waited)
        self.total = Load()
        self._of: dict[str, Load] = {}
        #: How many were refused, by principal and by the limit they met.
        self.refused: Counter[tuple[str, str]] = Counter()
        self._logged: dict[str, float] = {}
        self._over = 0
        self._since = time.monotonic()
        self._rate = _FIRST_RATE

    @property
    def loads(self) -> Mapping[str, Load]:
        """What each principal has under way."""
        return self._of

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Callable[[], None]]:
        """Follow other settings. What is accepted stays so."""

        def commit() -> None:
            self._limits = limits = new.limits
            self.turns.resize(limits.concurrency, limits.concurrency_per_principal)
            self._of = {who: load for who, load in self._of.items() if load.requests}

        yield commit

    def enter(self, principal: str) -> "Place":
        """Accept a request, which then waits for its turn; raises `Overloaded`."""
        limits, total = self._limits, self.total
        load = self._of.get(principal)
        if load is None:
            load = self._of[principal] = Load()
        if load.requests >= limits.queue_per_principal:
            raise self._refusal(principal, "queue_per_principal", load)
        if total.requests >= limits.queue:
            raise self._refusal(principal, "queue", total)
        total.requests += 1
        load.requests += 1
        return Place(self, principal, load)

    def hold(self, principal: str, load: Load, number: int) -> None:
        """Hold so many bytes for a principal; raises `Overloaded`."""
        limits = self._limits
        if load.bytes + number > limits.bytes_per_principal:
            raise self._refusal(principal, "bytes_per_principal", load)
        if self.total.bytes + number > limits.bytes_in_flight:
            raise self._refusal(principal, "bytes_in_flight", self.total)
        self.exchange(load, number)

    def exchange(self, load: Load, number: int) -> None:
        """Hold so many bytes more, or less, of what was accepted: an answer is not refused."""
        load.bytes += number
        self.total.bytes += number

    def leave(self, load: Load, number: int) -> None:
        """A request is over that held so many bytes."""
        load.requests -= 1
        load.bytes -= number
        total = self.total
        total.requests -= 1
        total.bytes -= number
        self._over += 1

    def _refusal(self, principal: str, limit: str, load: Load) -> Overloaded:
        self.refused[principal, limit] += 1
        now = time.monotonic()
        if now - self._logged.get(principal, -_LOGGED) >= _LOGGED:
            self._logged[principal] = now
            _log.warning("load.refused", principal=principal, limit=limit)
        wait = self._pushback(load, now)
        return Overloaded(
            f"The agent has as many requests as it accepts (limits.{limit}); "
            f"try again in {wait:.2f} s.",
            retry_after=wait,
        )

    def _pushback(self, load: Load, now: float) -> float:
        """Return the seconds until about half of this load is over, at the rate of late, and
        spread, so that those who were refused together do not come back together."""
        elapsed = now - self._since
        if elapsed >= _MEASURED:
            self._rate = max(1.0, self._over / elapsed)
            self._over, self._since = 0, now
        wait = load.requests / 2 / self._rate * random.uniform(0.5, 1.5)  # noqa: S311 (spreads load, hides nothing)
        return min(_LATEST, max(_SOONEST, wait))


class Place:
    """One accepted request. It has to `leave` once, whatever became of it."""

    __slots__ = ("_admission", "_bytes", "_load", "_principal")

    def __init__(self, admission: Admission, principal: str, load: Load) -> None:
        self._admission = admission
        self._principal = principal
        self._load = load
        self._bytes = 0

    def turn_at_once(self) -> bool:
        """May it be worked at now? If so, `rest` has to follow; if not, `turn` does."""
        return self._admission.turns.take_at_once(self._principal)

    async def turn(self, seconds: float) -> None:
        """Wait until it may be worked at; then `rest` has to follow. Raises `DeadlineExceeded`."""
        await self._admission.turns.take(self._principal, seconds)

    def rest(self) -> None:
        """The work is done."""
        self._admission.turns.give(self._principal)

    def hold(self, number: int) -> None:
        """Hold the bytes of the request. Raises `Overloaded`."""
        self._admission.hold(self._principal, self._load, number)
        self._bytes = number

    def answer(self, number: int) -> None:
        """Hold the bytes of the answer, in place of the request's."""
        self._admission.exchange(self._load, number - self._bytes)
        self._bytes = number

    def leave(self, *_: object) -> None:
        """It is over. Takes what gRPC tells of the call, and needs none of it."""
        self._admission.leave(self._load, self._bytes)
