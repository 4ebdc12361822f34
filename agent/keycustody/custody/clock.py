"""Wall time that never goes backwards, for decisions and for the journal.

It follows the system's clock forwards. While that is behind, because somebody set it back, the time
goes on by the monotonic clock from where it was; and an agent that starts goes on from the last
record of its journal. So a clock that is set back revives no expired grant, also across a restart.
The price: a clock that was once far in the future is believed for as long as the journal is used
(docs/policy.md).
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from keycustody.errors import AuditChainBroken

#: Seconds behind from which on it is worth a word: more than clocks are slewed at a time.
_WORTH_SAYING = 2.0


class Clock:
    """The time, in seconds since 1970. Each call of `now` returns no less than the one before."""

    def __init__(
        self,
        at_least: float = 0.0,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        # One value, so that threads see both of a time or both of the next.
        self._last = (at_least, monotonic())

    def now(self) -> float:
        """Return the time."""
        at, since = self._last
        elapsed = self._monotonic()
        time_now = max(self._wall(), at + max(0.0, elapsed - since))
        self._last = (time_now, elapsed)
        return time_now

    def utc(self) -> datetime:
        """Return the time as a date."""
        return datetime.fromtimestamp(self.now(), UTC)

    @property
    def behind(self) -> float:
        """Seconds by which the system's clock is behind."""
        return max(0.0, self.now() - self._wall())

    def findings(self) -> Iterator[str]:
        """Say so, if the system's clock is behind."""
        if (behind := self.behind) > _WORTH_SAYING:
            yield (
                f"The system's clock is {behind:.0f} s behind the audit journal's last record or "
                "was set back; the agent goes on by its own time. Correct the system's clock."
            )


def stamp(seconds: float) -> str:
    """Return a time as audit records have it (docs/format.md, 8)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def read_stamp(text: str) -> float:
    """Return the seconds of a record's time. Raises `AuditChainBroken`."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise AuditChainBroken("An audit record's time is none.") from error
