"""The circuit breaker: while the token cannot be used, nobody waits for it.

It is open while no worker serves, and the token refused the last start of one, failed two in a row,
or three crashed while they started or at the first they were asked. A worker that somebody killed
says nothing of the token. Calls are then refused at once, with a hint when to try again, and one
worker at a time is started: the probe. When one is up, the breaker is closed.

Pauses between probes double up to a cap, short enough to notice a token within two seconds of its
return, and are spread, so that many agents that lost one token do not come back to it at once.
"""

import random
import time
from collections.abc import Callable

from keycustody import errors
from keycustody.errors import KeycustodyError, TokenUnavailable

#: Seconds before the next start after the first failure, and at most: a probe costs some 0.1 s of
#: processor time, and takes as long.
_PAUSE, _LONGEST_PAUSE = 0.05, 0.8
#: The same for what a person has to mend; nothing asks the token then.
_LONGEST_FOR_PEOPLE = 5.0
#: What a probe takes, roughly: part of the hint.
_PROBE_SECONDS = 0.25
#: What is not evident counts when it repeats: three workers in a row that crashed, or two that the
#: token failed without saying why.
_DOUBTS, _CRASH, _UNAVAILABLE = 6, 2, 3

_FOR_PEOPLE = (
    errors.ConfigInvalid,
    errors.FileUnusable,
    errors.InsecurePermissions,
    errors.PinGuarded,
    errors.PinIncorrect,
    errors.PinUnavailable,
    errors.TokenNotProvisioned,
)
GONE = "The token cannot be reached at the moment; the agent goes on trying."


class Breaker:
    """Knows whether the token can be used. `ready` tells how many workers serve."""

    def __init__(
        self, ready: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ready = ready
        self._clock = clock
        self._failures = 0
        self._doubts = 0
        self._next = 0.0
        #: Why the token cannot be used, as far as the last start says; None if it came up.
        self.trouble: KeycustodyError | None = None
        #: How often it opened.
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Are calls refused?"""
        return self.trouble is not None and self._ready() == 0

    def refusal(self) -> TokenUnavailable:
        """Return what callers are told while it is open."""
        wait = max(0.0, self._next - self._clock()) + _PROBE_SECONDS
        return TokenUnavailable(GONE, retry_after=wait)

    def failed(self, error: KeycustodyError) -> float:
        """Take note of a start that failed; returns the seconds until the next one may come."""
        if type(error) is TokenUnavailable:
            return self._doubt(_UNAVAILABLE, error)
        return self._refused(error)

    def crashed(self) -> float:
        """Take note of a worker that ended before it was of use, and nobody knows why: perhaps it
        was only killed. Returns the seconds until the next start may come."""
        return self._doubt(_CRASH, TokenUnavailable("Workers end before they are of use."))

    def came_up(self) -> None:
        """Take note of a worker that serves."""
        self.trouble = None

    def was_useful(self) -> None:
        """Take note that some worker did what it was asked: what was before is forgotten."""
        self._failures = self._doubts = 0

    def _doubt(self, weight: int, error: KeycustodyError) -> float:
        self._doubts += weight
        return self._refused(error) if self._doubts >= _DOUBTS else 0.0

    def _refused(self, error: KeycustodyError) -> float:
        was_open = self.is_open
        self.trouble = error
        self._failures += 1
        self.openings += self.is_open and not was_open
        longest = _LONGEST_FOR_PEOPLE if isinstance(error, _FOR_PEOPLE) else _LONGEST_PAUSE
        pause = min(longest, _PAUSE * 2.0 ** min(self._failures, 32))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, hides nothing)
        self._next = self._clock() + pause
        return pause
