"""The table of states on a real token: any order of changes comes to what the table says.

What happens when agents are killed or meet is tried far more often on a model, by
tests/unit/custody/test_lifecycle_machine.py.
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings, Limits
from keycustody.custody.access.rules import Rules
from keycustody.custody.keys.catalogue import View, look
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.keys.states import TRANSITIONS
from keycustody.custody.lifecycle import (
    Actor,
    Apply,
    Change,
    Destroy,
    Executor,
    Retire,
    Revoke,
    Rotate,
)
from keycustody.errors import InvalidTransition, KeyNotFound
from keycustody.formats.state import State
from keycustody.token.api import Scan
from keycustody.token.profiles import load
from tests.integration.token.opened import OpenedPool, opened
from tests.softhsm import SoftHsmToken
from tests.unit.custody.lifecycle_agents import Journal

pytestmark = pytest.mark.slow

_NAMES = itertools.count(1)
_PROFILE = load("softhsm2")
_INTERVAL = 15.0

#: A kind of change, and the state that it brings a version to; None: makes the next version.
KINDS = [None, State.RETIRED, State.REVOKED, State.DESTROYED]
steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 2)), min_size=6, max_size=6)


@pytest.fixture(scope="module")
def token(module_token: SoftHsmToken) -> Iterator[OpenedPool]:
    """Two workers, one token."""
    with opened(module_token) as pool:
        yield pool


class Life:
    """One key on that token, and a day between any two changes."""

    def __init__(self, token: OpenedPool) -> None:
        self.token = token
        self.name = f"key{next(_NAMES)}"
        self.memory = MemoryFile()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.declared = {
            self.name: KeySettings(
                purpose=Purpose.SIGN, algorithm="EC_P256", old_versions="keep", destroy_wait_days=1
            )
        }
        rules = Rules("", (), self.declared, Limits(scan_seconds=_INTERVAL))
        self.executor = Executor(
            token.pool, _PROFILE, Journal(), self.memory, lambda: rules, lambda: self.now
        )
        self.run(Apply())

    def run(self, change: Change) -> None:
        self.token.run(self.executor.run(change, Actor("tester", "")))
        self.now += timedelta(days=1)

    def bring(self, number: int, state: State) -> None:
        """Make the change that brings a version to a state."""
        match state:
            case State.RETIRED:
                self.run(Retire(self.name, number))
            case State.REVOKED:
                self.run(Revoke(self.name, number, "lost"))
            case _:
                self.run(Destroy(self.name, number, self.name))

    def shown(self) -> dict[int, tuple[State, bool]]:
        """Of each version its state, and whether its objects are there."""
        view = View(self.declared, _PROFILE, self.memory.memory, self.now, _INTERVAL)
        sight = look(self.token.call(Scan()), view)
        return {
            version.number: (
                version.state,
                bool(sight.evidence[f"{self.name}.v{version.number}"].objects),
            )
            for version in sight.keys[self.name].versions
        }


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(steps=steps)
def test_any_order_of_changes(token: OpenedPool, steps: list[tuple[State | None, int]]) -> None:
    life = Life(token)
    expected = {1: State.ACTIVE}
    for state, number in steps:
        if state is None:
            life.run(Rotate(life.name))
            expected[max(expected) + 1] = State.ACTIVE
        elif number not in expected:
            with pytest.raises(KeyNotFound):
                life.bring(number, state)
        elif state is expected[number] or state in TRANSITIONS[expected[number]]:
            life.bring(number, state)
            expected[number] = state
        else:
            with pytest.raises(InvalidTransition):
                life.bring(number, state)
        assert life.shown() == {
            version: (now, now is not State.DESTROYED) for version, now in expected.items()
        }
