"""Counting while requests are served, for a few microseconds each.

Everything here runs in the agent's loop, so that nothing is locked.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable

from keycustody.custody.operation import OK, Entry
from keycustody.errors import BY_CODE

#: Upper bounds in seconds, from a signature in SoftHSM to the longest deadline that is usual.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
#: In place of a name that is in no settings and no table.
OTHER = "other"
OPERATIONS = frozenset(
    {"read", "sign", "agree", "decrypt", "generate", "unwrap", "rewrap", "status", "reload"}
    | {"apply", "adopt", "rotate", "revoke", "destroy", "plan", "explain"}
)

#: Is that a principal, or a key, of the settings in force?
Known = Callable[[str], bool]


class Histogram:
    """How often a duration was in each bucket, and all of them together."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Tally:
    """What was counted since the agent began. Observes requests and the token's answers."""

    def __init__(self) -> None:
        self._principal: Known = _nobody
        self._key: Known = _nobody
        #: By principal, operation, key and result.
        self.requests: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        #: By operation and result.
        self.items: defaultdict[tuple[str, str], int] = defaultdict(int)
        #: Whole requests, and what of them was neither queue nor token, by operation.
        self.seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.rest: defaultdict[str, Histogram] = defaultdict(Histogram)
        #: By kind of request to the token.
        self.queued: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.worked: defaultdict[str, Histogram] = defaultdict(Histogram)
        #: Of requests that had to wait for their turn: how long, by what for.
        self.waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        #: Writes of the audit journal, how many of them failed, and whether the last one did.
        self.writes = Histogram()
        self.failed_writes = 0
        self.writable = True

    def known_by(self, principal: Known, key: Known) -> None:
        """Say whose names, and which keys', are labels."""
        self._principal, self._key = principal, key

    def answered(self, entry: Entry) -> None:
        """Take note of a request that is over."""
        seconds = entry.seconds
        operation = entry.operation if entry.operation in OPERATIONS else OTHER
        principal = entry.caller.principal
        result = entry.result
        self.requests[
            principal if self._principal(principal) else OTHER,
            operation,
            entry.key if not entry.key or self._key(entry.key) else OTHER,
            result if result == OK or result in BY_CODE else OTHER,
        ] += 1
        self.seconds[operation].observe(seconds)
        self.rest[operation].observe(max(0.0, seconds - entry.waited))
        for code in entry.codes:
            self.items[operation, code] += 1

    def asked(self, kind: str, queued: float, worked: float) -> None:
        """Take note of what the token answered: how long it waited, and how long it took."""
        self.queued[kind].observe(queued)
        self.worked[kind].observe(worked)

    def waited_in(self, place: str) -> Callable[[float], None]:
        """Return what takes note of waits for a turn there."""
        return self.waits[place].observe

    def wrote(self, seconds: float, failed: bool) -> None:
        """Take note of a write of the audit journal."""
        self.writes.observe(seconds)
        self.failed_writes += failed
        self.writable = not failed


def _nobody(name: str) -> bool:
    return False
