"""The life of keys as a state machine: two agents, one token, and everything that can go wrong.

The planning, the executor, the state records, the catalogue and the memory are the real ones. The
token is a model that passes what SoftHSM passes (tests/contract/test_provisioning.py), because only
a model can be held up or killed at every single call, thousands of times.
"""

import asyncio
from datetime import timedelta
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys.evidence import Kind, label_of
from keycustody.custody.lifecycle import (
    Adopt,
    Apply,
    Change,
    Destroy,
    Retire,
    Revoke,
    Rotate,
    executor,
)
from keycustody.formats.state import State
from tests.unit.custody.lifecycle_agents import INTERVAL, Agent, World
from tests.unit.custody.model_token import strange_pair

pytestmark = pytest.mark.slow

DAY = 86_400
STRANGE_ID = b"\x0a\x01"
DECLARED = {
    "release": KeySettings(
        purpose=Purpose.SIGN, algorithm="EC_P256", rotation_days=30, destroy_wait_days=2
    ),
    "invoices": KeySettings(purpose=Purpose.WRAP, overlap_seconds=3600, destroy_wait_days=0),
    "old": KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256", destroy_wait_days=1),
}

names = st.sampled_from(["release", "invoices", "old"])
numbers = st.integers(1, 4)
which = st.sampled_from([0, 1])
#: How far a change gets: to its end, or only so many turns.
turns = st.one_of(st.just(float("inf")), st.integers(0, 25))
changes: st.SearchStrategy[Change] = st.one_of(
    st.just(Apply()),
    st.builds(Rotate, st.one_of(st.just(""), names)),
    st.builds(Retire, names, numbers),
    st.builds(Revoke, names, numbers, st.just("lost")),
    names.flatmap(lambda name: st.builds(Destroy, st.just(name), numbers, st.just(name))),
    st.just(Adopt("old", STRANGE_ID)),
    st.just(Adopt("release", STRANGE_ID)),
)


class Lives(RuleBasedStateMachine):
    """Two agents, a clock, and old copies of the token."""

    @initialize(provisioned=st.booleans())
    def begin(self, provisioned: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World(DECLARED)
        self.world.token.objects += strange_pair("Old key (2019)", STRANGE_ID)
        self.agents = [Agent(self.world, self.loop), Agent(self.world, self.loop)]
        self.copies: list[list[Any]] = []
        #: Whether time passed while a change was held up, or the token was put back: what the
        #: agents then know of each other is bounded by neither.
        self.slow = self.restored = False
        if provisioned:
            assert self.agents[0].change(Apply(), float("inf"))
            self.agents[1].scan()

    # -- changes -----------------------------------------------------------------------------------

    @rule(number=which, change=changes, turns=turns)
    def change(self, number: int, change: Change, turns: float) -> None:
        agent = self.agents[number]
        if agent.busy:
            agent.go_on(turns)
            return
        report = agent.change(change, turns)
        if report is not None and isinstance(change, Revoke):
            self._serves_no_more(agent, change)

    def _serves_no_more(self, agent: Agent, change: Revoke) -> None:
        assert agent.catalogue is not None
        servable = agent.catalogue.keys[change.name].servable
        assert change.version not in [version.number for version in servable]

    @rule(number=which, turns=turns)
    def go_on(self, number: int, turns: float) -> None:
        if self.agents[number].busy:
            self.agents[number].go_on(turns)

    @rule(number=which)
    def kill(self, number: int) -> None:
        self.agents[number].kill()

    # -- what happens beside -----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 10, 20, 3700, 25 * 3600, 3 * DAY, 31 * DAY]))
    def pass_time(self, seconds: int) -> None:
        self.slow |= any(agent.busy for agent in self.agents)
        self.world.now += timedelta(seconds=seconds)
        for agent in self.agents:
            if (self.world.now - agent.scanned).total_seconds() > INTERVAL:
                agent.scan()

    @rule(number=which)
    def scan(self, number: int) -> None:
        self.agents[number].scan()

    @rule()
    def copy(self) -> None:
        self.copies.append(list(self.world.token.objects))

    @precondition(lambda self: self.copies)
    @rule(place=st.integers(0, 100))
    def put_back(self, place: int) -> None:
        """The token goes back to an older day, and the agents with their memory start again."""
        self.restored = True
        self.world.token.objects[:] = self.copies[place % len(self.copies)]
        for agent in self.agents:
            agent.kill()

    # -- what must be so ---------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        """When all is finished and each agent has applied, there is nothing left to do."""
        for agent in self.agents:
            if agent.busy:
                agent.go_on(float("inf"))
        for agent in self.agents:
            assert agent.change(Apply(), float("inf")) is not None
        for agent in self.agents:
            report = agent.plan(Apply())
            assert [step.text for step in report.steps] == []
            kinds = {finding.kind for finding in report.findings}
            assert not kinds & {Kind.UNRECORDED, Kind.WEAKER}
            # What is remembered as destroyed and is back waits for an operator.
            assert self.restored or Kind.STATE not in kinds
            assert self.restored or self.slow or not kinds & {Kind.IMPOSTOR, Kind.MISSING}
            assert agent.memory.memory.making == {}

    @invariant()
    def no_label_has_two_keys(self) -> None:
        if not self.slow and not self.restored:
            for label, ids in self.world.served.items():
                assert len(ids) == 1, f"{label} was served as two keys"

    @invariant()
    def a_new_version_is_known_to_every_agent(self) -> None:
        """Where it replaces one that is still active, so that no request fails by it."""
        if self.slow or self.restored:
            return
        for one, two in (self.agents, self.agents[::-1]):
            if one.catalogue is None or two.catalogue is None:
                continue
            for name, key in one.catalogue.keys.items():
                active = [v.number for v in key.versions if v.state is State.ACTIVE]
                if key.current is not None and active[0] < key.current.number:
                    known = [v.number for v in two.catalogue.keys[name].versions]
                    assert key.current.number in known, label_of(name, key.current.number)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for agent in self.agents:
                agent.kill()
            self.loop.close()


# No time passes while an agent waits for the other one, which does nothing meanwhile.
TestLives = mock.patch.object(executor, "_PAUSE", 0.0)(Lives.TestCase)
TestLives.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
