"""Whether a call that failed is sent again, and after what pause. No I/O.

gRPC's own retries come first (`channel`). What they leave is judged here, once for every driver,
by the kind of error and by whether a call may take effect twice:

* `OVERLOADED`, where the agent says when to come again: nothing was done. Any call, then, if its
  deadline allows.
* Nobody is there (`AgentUnreachable.away`): nothing was sent. Any call, for as long as the caller's
  patience.
* `AGENT_GONE` and `TOKEN_UNAVAILABLE`: it is not known what was done. An idempotent call, for as
  long as the patience.
* Everything else is the answer.

The deadline covers a call with all its repetitions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from keycustody.client.calls import Call
from keycustody.errors import (
    AgentGone,
    AgentUnreachable,
    DeadlineExceeded,
    InvalidRequest,
    KeycustodyError,
    Overloaded,
    TokenUnavailable,
)

#: Between two looks for an agent that is away.
PAUSE_SECONDS: Final = 0.1
_LEAST_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Timing:
    """A call's deadline in seconds, and for how many an agent that is away is waited for."""

    timeout: float
    patience: float = 0.0

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise InvalidRequest("The timeout is a number of seconds above zero.")
        if not self.patience >= 0:
            raise InvalidRequest("The patience is a number of seconds, or zero.")


class Attempts:
    """The attempts of one call. `clock` returns seconds and never goes back."""

    def __init__(self, call: Call[Any], timing: Timing, clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._patient_until = clock() + timing.patience
        self._deadline = clock() + timing.timeout

    @property
    def left(self) -> float:
        """Seconds until the deadline; never none at all, which some take for no deadline."""
        return max(_LEAST_SECONDS, self._deadline - self._clock())

    def too_late(self) -> DeadlineExceeded:
        """The error for a deadline that passed before the call was sent."""
        return DeadlineExceeded("The agent could not be reached in time; nothing was sent.")

    def pause(self, error: KeycustodyError) -> float:
        """How long to wait before the next attempt. Raises `error` if there is none."""
        away = isinstance(error, AgentUnreachable) and error.away
        gone = isinstance(error, AgentGone | TokenUnavailable) and self._call.idempotent
        if away or gone:
            seconds = max(error.retry_after or 0.0, PAUSE_SECONDS)
            until = min(self._deadline, self._patient_until)
        elif isinstance(error, Overloaded) and error.retry_after is not None:
            seconds, until = max(error.retry_after, _LEAST_SECONDS), self._deadline
        else:
            raise error
        if self._clock() + seconds >= until:
            raise error
        return seconds
