"""Denials: each has its record, until a principal is denied so often that it would fill the disk.

Beyond a rate of its principal, a denial is counted, and all that were counted get one record
together: at intervals, and when the agent stops. A denial has done nothing, so a record that comes
late, or is lost with a kill, hides no operation: what was granted, or reached the token, always has
a record of its own. Memory is bounded by the number of principals; callers that are none of ours
share one name.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec.structs import replace

from keycustody.config import RateSettings
from keycustody.custody.access.counters import Bucket
from keycustody.custody.audit.journal import Journal
from keycustody.custody.clock import stamp
from keycustody.errors import (
    AuditUnavailable,
    BudgetExceeded,
    PermissionDenied,
    PolicyViolation,
    RateExceeded,
    Unauthenticated,
)
from keycustody.formats.audit import AuditRecord, Head

#: The decision's own refusals.
DENIALS = (Unauthenticated, PermissionDenied, RateExceeded, BudgetExceeded, PolicyViolation)
_CODES = frozenset(error.code for error in DENIALS)

#: Seconds between the records of those that were counted.
_INTERVAL = 5.0


@dataclass(slots=True)
class _Counted:
    """Denials of one principal: the first of them, how many, and when the first and the last."""

    first: AuditRecord
    count: int
    since: float
    until: float


class Denials:
    """A journal for requests, which counts denials that are too many."""

    def __init__(
        self,
        journal: Journal,
        rate: RateSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._rate = rate
        self._monotonic = monotonic
        self._buckets: dict[str, Bucket] = {}
        self._counted: dict[str, _Counted] = {}
        #: How many denials got no record of their own.
        self.counted = 0

    @property
    def head(self) -> Head:
        """The last durable record."""
        return self._journal.head

    def append(self, record: AuditRecord, *, under_way: int = 0) -> Awaitable[None]:
        """Begin to write one record, or count it, which is done at once."""
        if not _did_nothing(record) or self._has_room(record.principal):
            return self._journal.append(record, under_way=under_way)
        self._count(record)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def run(self) -> None:
        """Write what was counted at intervals, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted. What cannot be written now is kept, and grows only in number."""
        now = self._monotonic()
        self._buckets = {
            who: bucket
            for who, bucket in self._buckets.items()
            if bucket.left(self._rate, now) < self._rate.burst
        }
        for who, counted in list(self._counted.items()):
            del self._counted[who]
            try:
                await self._journal.append(_together(counted))
            except AuditUnavailable:
                later = self._counted.get(who)
                if later is not None:
                    counted.count += later.count
                    counted.until = later.until
                self._counted[who] = counted

    def _has_room(self, principal: str) -> bool:
        bucket, now = self._buckets.setdefault(principal, Bucket()), self._monotonic()
        if bucket.left(self._rate, now) < 1:
            return False
        bucket.take(1, self._rate, now)
        return True

    def _count(self, record: AuditRecord) -> None:
        self.counted += 1
        now = self._journal.clock.now()
        counted = self._counted.get(record.principal)
        if counted is None:
            self._counted[record.principal] = _Counted(record, 1, now, now)
        else:
            counted.count += 1
            counted.until = now


def _did_nothing(record: AuditRecord) -> bool:
    """Was this refused before anything was asked of the token? A result without a grant is, and
    what the decision refuses; whatever has items is not."""
    if record.result == "OK" or record.items:
        return False
    return record.result in _CODES or not record.grant


def _together(counted: _Counted) -> AuditRecord:
    if counted.count == 1:
        return counted.first
    since, until = stamp(counted.since), stamp(counted.until)
    return replace(
        counted.first,
        count=counted.count,
        detail=f"{counted.count} denials from {since} to {until}, not recorded one by one; the "
        f"first: {counted.first.detail or counted.first.result}",
    )
