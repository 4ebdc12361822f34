"""How long an attempt of a request may take before its worker counts as hung (docs/adr/0025).

All is a multiple of one number, what the token may take for something quick: that of the settings,
`token.attempt_seconds`, or of the profile. What grows with the token (a scan) gets ten times what
it took lately, if that is less than its most; what makes an RSA key gets minutes. Nothing here
knows of a caller's deadline: an impatient caller must not be able to have workers killed.
"""

from typing import Any, Final

from keycustody.token.api import (
    ChangePin,
    CreateVersion,
    DestroyObjects,
    Inspect,
    Login,
    Open,
    Request,
    Scan,
    WriteData,
)

#: Requests that may take long. Nothing waits behind them on a pipe.
LONG: Final = (Scan, Inspect, DestroyObjects, WriteData, CreateVersion, ChangePin)
#: Items that may take as long together as the first one alone.
_ITEMS = 16
#: Multiples of `attempt_seconds`.
_MOST: Final[dict[type[Any], float]] = {
    Open: 5.0,
    Login: 2.5,
    ChangePin: 5.0,
    Scan: 10.0,
    Inspect: 10.0,
    DestroyObjects: 10.0,
    WriteData: 5.0,
    CreateVersion: 10.0,
}
_RSA = 60.0
_ADAPTIVE = (Scan, Inspect, DestroyObjects)
_LATELY = 10.0
#: How fast the slowest time is forgotten, with each that is faster.
_FADE = 0.9


class Ceilings:
    """The ceilings of one pool."""

    def __init__(self, attempt_seconds: float) -> None:
        self._quick = attempt_seconds
        self._slowest: dict[type[Any], float] = {}

    def note(self, request: Request[Any], seconds: float) -> None:
        """Take note of what an attempt took that was answered."""
        kind = type(request)
        if kind in _ADAPTIVE:
            self._slowest[kind] = max(seconds, _FADE * self._slowest.get(kind, 0.0))

    def of(self, request: Request[Any]) -> float:
        """Return the seconds that an attempt of it may take."""
        kind = type(request)
        if isinstance(request, CreateVersion) and request.algorithm.startswith("RSA"):
            return _RSA * self._quick
        most = _MOST.get(kind, 1.0) * self._quick
        if kind in self._slowest:
            return min(most, max(self._quick, _LATELY * self._slowest[kind]))
        return most * (1 + items(request) / _ITEMS)


def items(request: Request[Any]) -> int:
    """Return how many items a request has; 0 if it is no batch."""
    for name in ("inputs", "points", "ciphertexts", "wrapped"):
        found = getattr(request, name, None)
        if isinstance(found, list):
            return len(found)
    return 0
