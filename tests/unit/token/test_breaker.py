"""When calls are refused, as a table of what happened before."""

import pytest

from keycustody.errors import KeycustodyError, PinGuarded, TokenNotFound, TokenUnavailable
from keycustody.token.breaker import Breaker

#: What happens, in order: `-` a worker crashed, `?` the token failed a start, `x` it refused one,
#: `+` a worker came up, `!` one did what it was asked. Then: is the breaker open?
_HISTORIES = {
    "": False,
    "x": True,
    "x+": False,
    "?": False,
    "??": True,
    "--": False,
    "---": True,
    "-?-": True,
    "?!?": False,
    "--!--": False,
    "---+": False,
    # Half open: the next that fails at once opens it again.
    "---+-": True,
    "---+!-": False,
}


def _after(history: str, ready: int = 0) -> Breaker:
    breaker = Breaker(lambda: ready, lambda: 0.0)
    for step in history:
        match step:
            case "-":
                breaker.crashed()
            case "?":
                breaker.failed(TokenUnavailable("?"))
            case "x":
                breaker.failed(TokenNotFound("x"))
            case "+":
                breaker.came_up()
            case "!":
                breaker.was_useful()
    return breaker


@pytest.mark.parametrize(("history", "is_open"), _HISTORIES.items())
def test_what_opens_it(history: str, is_open: bool) -> None:
    assert _after(history).is_open is is_open
    # As long as one worker serves, nobody is refused.
    assert not _after(history, ready=1).is_open


@pytest.mark.parametrize(
    ("error", "longest"), [(TokenNotFound("gone"), 0.8), (PinGuarded("guarded"), 5.0)]
)
def test_pauses_grow_to_a_cap_and_are_told(error: KeycustodyError, longest: float) -> None:
    breaker = Breaker(lambda: 0, lambda: 0.0)
    pauses = [breaker.failed(error) for _ in range(40)]
    assert pauses[0] <= 0.1
    assert all(longest / 2 <= pause <= longest for pause in pauses[10:])
    assert len(set(pauses[10:])) > 1
    hint = breaker.refusal().retry_after
    assert hint is not None
    assert pauses[-1] < hint < pauses[-1] + 1
    assert breaker.openings == 1
