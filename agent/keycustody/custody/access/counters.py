"""What grants have been used: operations for their rates, session keys for their budgets.

Counted for each grant (by its name) and principal. A rate is a bucket that holds `burst` operations
and fills with `per_second`. A budget counts the distinct session keys that were unwrapped in the
window that ends now; one that is unwrapped again in its window is the same one, and stays for a
window longer. A decision only reads. What it allows is reserved before anything else is decided, so
that requests at the same time cannot overshoot together; `Charge.settle` then keeps what was
unwrapped and gives back the rest. Operations are not given back: an attempt is one.

Memory is bounded by the settings: a window never holds more session keys than its budget.
After a restart, `replay` takes what the audit journal has of them.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from keycustody.config import BudgetSettings, RateSettings
from keycustody.custody.access.grants import Ask, Grant
from keycustody.formats.audit import AuditRecord

#: Rounding of a bucket's level that refuses nobody.
_ROUNDING = 1e-9
#: Seconds after which to try again while others' requests hold what is left of a budget.
_HELD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Use:
    """How much of one limit is used: of a budget's window in seconds, or (window 0) of a rate's
    burst."""

    grant: str
    principal: str
    window: int
    used: int
    limit: int


class Window:
    """The session keys that were unwrapped in the last `seconds`, and those that may be now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: Digest to the time of its last unwrap, in the order of these times.
        self._unwrapped: OrderedDict[bytes, float] = OrderedDict()
        #: Digest to how many requests under way hold it.
        self._held: dict[bytes, int] = {}
        #: How many of those held are not among those unwrapped.
        self._only_held = 0

    def used(self, now: float) -> int:
        """Return how many session keys count now."""
        self._expire(now)
        return len(self._unwrapped) + self._only_held

    def wait(self, digests: Collection[bytes], limit: int, now: float) -> float:
        """Return the seconds until these would be allowed: 0 now, `inf` never together."""
        used = self.used(now)
        new = sum(1 for one in digests if one not in self._unwrapped and one not in self._held)
        over = used + new - limit
        if not new or over <= 0:
            return 0.0
        if len(digests) > limit:
            return math.inf
        leaves = next(islice(self._unwrapped.values(), over - 1, None), None)
        return _HELD_SECONDS if leaves is None else leaves + self._seconds - now

    def hold(self, digests: Iterable[bytes]) -> None:
        """Reserve these."""
        for one in digests:
            held = self._held.get(one, 0)
            if not held and one not in self._unwrapped:
                self._only_held += 1
            self._held[one] = held + 1

    def release(self, digests: Iterable[bytes]) -> None:
        """Give the reservation back; those that were unwrapped were added before."""
        for one in digests:
            self._held[one] -= 1
            if not self._held[one]:
                del self._held[one]
                if one not in self._unwrapped:
                    self._only_held -= 1

    def add(self, digests: Iterable[bytes], now: float) -> None:
        """Count these as unwrapped now."""
        self._expire(now)
        for one in digests:
            if one in self._held and one not in self._unwrapped:
                self._only_held -= 1
            self._unwrapped[one] = now
            self._unwrapped.move_to_end(one)

    def _expire(self, now: float) -> None:
        while self._unwrapped:
            oldest, unwrapped = next(iter(self._unwrapped.items()))
            if now - unwrapped < self._seconds:
                return
            del self._unwrapped[oldest]
            if oldest in self._held:
                self._only_held += 1


class Bucket:
    """What is left of a rate."""

    def __init__(self) -> None:
        self._spent, self._at = 0.0, 0.0

    def left(self, rate: RateSettings, now: float) -> float:
        """Return how many operations it holds now."""
        refilled = max(0.0, now - self._at) * rate.per_second
        return rate.burst - min(float(rate.burst), max(0.0, self._spent - refilled))

    def take(self, count: int, rate: RateSettings, now: float) -> None:
        """Take that many, or all that there are."""
        self._spent = rate.burst - max(0.0, self.left(rate, now) - count)
        self._at = now


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request that was allowed holds."""

    windows: tuple[Window, ...]
    digests: Collection[bytes]

    def settle(self, unwrapped: Iterable[bytes], now: float) -> None:
        """Count what was unwrapped, and give back the rest. Once."""
        kept = [one for one in unwrapped if one in self.digests]
        for window in self.windows:
            window.add(kept, now)
            window.release(self.digests)


class Counters:
    """The state of all rates and budgets of one snapshot of grants."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self._grants: dict[str, Grant] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._windows: dict[tuple[str, str, int], Window] = {}
        self.follow(grants)

    def follow(self, grants: Iterable[Grant]) -> None:
        """Count for other grants from now on. What has the same name, principal and window goes on;
        a new window begins empty."""
        self._grants = {one.name: one for one in grants if one.rate or one.budgets}
        pairs = [(g, who) for g in self._grants.values() for who in g.principals]
        self._buckets = {
            (grant.name, who): self._buckets.get((grant.name, who)) or Bucket()
            for grant, who in pairs
            if grant.rate
        }
        self._windows = {
            (key := (grant.name, who, budget.seconds)): self._windows.get(key)
            or Window(budget.seconds)
            for grant, who in pairs
            for budget in grant.budgets
        }

    def rate_wait(self, ask: Ask, grant: str, rate: RateSettings, now: float) -> float:
        """Return the seconds until the rate allows the request: 0 now, `inf` never in one."""
        bucket = self._buckets.get((grant, ask.principal)) or Bucket()
        if ask.count > rate.burst:
            return math.inf
        lacking = ask.count - bucket.left(rate, now)
        return lacking / rate.per_second if lacking > _ROUNDING else 0.0

    def budget_wait(self, ask: Ask, grant: str, budget: BudgetSettings, now: float) -> float:
        """Return the seconds until the budget allows the request: 0 now, `inf` never in one."""
        window = self._windows.get((grant, ask.principal, budget.seconds))
        if window is None:
            window = Window(budget.seconds)
        return window.wait(ask.session_keys, budget.session_keys, now)

    def reserve(self, grant: Grant, ask: Ask, now: float) -> Charge | None:
        """Take what an allowed request may use."""
        bucket = self._buckets.get((grant.name, ask.principal))
        if bucket is not None and grant.rate is not None:
            bucket.take(ask.count, grant.rate, now)
        if not ask.session_keys:
            return None
        windows = tuple(self._windows_of(grant, ask.principal))
        for window in windows:
            window.hold(ask.session_keys)
        return Charge(windows, ask.session_keys)

    def replay(self, record: AuditRecord, at: float) -> None:
        """Count what a record of the journal says, in the journal's order."""
        grant = self._grants.get(record.grant)
        if grant is None or record.principal not in grant.principals:
            return
        bucket = self._buckets.get((grant.name, record.principal))
        if bucket is not None and grant.rate is not None:
            bucket.take(max(1, len(record.items)), grant.rate, at)
        if record.operation == "unwrap" and record.result == "OK":
            unwrapped = succeeded(record.items)
            for window in self._windows_of(grant, record.principal):
                window.add(unwrapped, at)

    @property
    def reach(self) -> float:
        """Seconds for which the past matters."""
        windows = [b.seconds for grant in self._grants.values() for b in grant.budgets]
        rates = [g.rate.burst / g.rate.per_second for g in self._grants.values() if g.rate]
        return max([0.0, *windows, *rates])

    def usage(self, now: float) -> Iterator[Use]:
        """Yield how much of each limit is used, for metrics and status."""
        for name, grant in self._grants.items():
            for who in grant.principals:
                if grant.rate is not None:
                    left = self._buckets[name, who].left(grant.rate, now)
                    yield Use(name, who, 0, math.ceil(grant.rate.burst - left), grant.rate.burst)
                for budget in grant.budgets:
                    used = self._windows[name, who, budget.seconds].used(now)
                    yield Use(name, who, budget.seconds, used, budget.session_keys)

    def _windows_of(self, grant: Grant, principal: str) -> Iterator[Window]:
        for budget in grant.budgets:
            window = self._windows.get((grant.name, principal, budget.seconds))
            if window is not None:
                yield window


def succeeded(items: Iterable[str]) -> list[bytes]:
    """Return the digests of the items of a record that went well."""
    return [bytes.fromhex(one[:64]) for one in items if one[64:] == ":OK"]
