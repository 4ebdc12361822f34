"""The table of transitions: no way back, and no way round."""

from itertools import product

import pytest

from keycustody.custody.keys.states import TRANSITIONS, check, may
from keycustody.errors import InvalidTransition
from keycustody.formats.state import State


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_only_what_the_table_says(before: State, after: State) -> None:
    allowed = {
        (State.ACTIVE, State.RETIRED),
        (State.ACTIVE, State.REVOKED),
        (State.RETIRED, State.REVOKED),
        (State.REVOKED, State.DESTROYED),
    }
    assert (after in TRANSITIONS[before]) is ((before, after) in allowed)
    if (before, after) in allowed:
        check("release.v1", before, after)
    else:
        with pytest.raises(InvalidTransition):
            check("release.v1", before, after)


def test_what_each_state_may_do() -> None:
    operations = ("sign", "agree", "decrypt", "generate", "unwrap", "rewrap")
    assert {state: [one for one in operations if may(state, one)] for state in State} == {
        State.ACTIVE: list(operations),
        State.RETIRED: ["decrypt", "unwrap", "rewrap"],
        State.REVOKED: [],
        State.DESTROYED: [],
    }
