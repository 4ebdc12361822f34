"""Lives of keys on the model token that are worth a name of their own."""

import asyncio
import dataclasses
from collections.abc import Iterator

import pytest

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys.evidence import Kind
from keycustody.custody.lifecycle import Adopt, Apply, Revoke, Rotate, executor
from keycustody.errors import KeyNotTrusted, KeyRevoked
from keycustody.formats.state import State
from tests.unit.custody.evidence import PROFILE
from tests.unit.custody.lifecycle_agents import Agent, World
from tests.unit.custody.model_token import ModelToken, strange_pair

ALL = float("inf")
ID = b"\x0a\x01"


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_PAUSE", 0.0)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.parametrize("turns", range(12))
def test_a_wrap_version_that_was_left_half_made_is_made_anew(
    loop: asyncio.AbstractEventLoop, turns: int
) -> None:
    world = World({})
    agent = Agent(world, loop)
    agent.change(Apply(), ALL)
    world.declared["invoices"] = KeySettings(purpose=Purpose.WRAP)
    agent.change(Apply(), turns)
    agent.kill()
    assert agent.change(Apply(), ALL) is not None
    assert agent.catalogue is not None
    assert [v.state for v in agent.catalogue.keys["invoices"].versions] == [State.ACTIVE]
    assert agent.plan(Apply()).steps == ()
    assert agent.plan(Apply()).findings == ()
    assert agent.memory.memory.making == {}


@pytest.mark.parametrize(
    ("changed", "served"),
    [
        ({"NEVER_EXTRACTABLE": True}, True),  # no weaker than it was
        ({"SENSITIVE": False}, False),
        ({"MODIFIABLE": True}, False),
        ({"DECRYPT": True}, False),
        ({"EXTRACTABLE": None}, False),  # not told, where it was
    ],
    ids=str,
)
def test_an_adopted_key_is_accepted_exactly_as_it_was(
    loop: asyncio.AbstractEventLoop, changed: dict[str, bool | None], served: bool
) -> None:
    world = World({})
    agent = Agent(world, loop)
    strange = strange_pair("Old key (2019)", ID)
    agent.change(Apply(), ALL)
    world.declared["old"] = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256")
    world.token.objects += strange
    assert agent.change(Adopt("old", ID), ALL) is not None
    place = world.token.objects.index(strange[0])
    world.token.objects[place] = type(strange[0])(
        "private", strange[0].label, ID, strange[0].attributes | changed
    )
    agent.scan()
    assert agent.catalogue is not None
    key = agent.catalogue.keys["old"]
    if served:
        assert key.version(0, "sign").weaker == ("EXTRACTABLE=true", "NEVER_EXTRACTABLE=false")
        return
    with pytest.raises(KeyNotTrusted):
        key.version(0, "sign")
    assert Kind.WEAKER in {finding.kind for finding in agent.catalogue.drift}


def test_a_token_without_data_objects_takes_states_from_the_settings(
    loop: asyncio.AbstractEventLoop,
) -> None:
    settings = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256", old_versions="keep")
    revoked = settings.model_copy(update={"states": {"1": "revoked"}})
    profile = dataclasses.replace(PROFILE, data_objects=False)
    world = World({"release": settings}, ModelToken(profile))
    agent, other = Agent(world, loop), Agent(world, loop)
    agent.change(Apply(), ALL)
    agent.change(Rotate("release"), ALL)

    def states(of: Agent) -> list[State]:
        of.scan()
        assert of.catalogue is not None
        return [version.state for version in of.catalogue.keys["release"].versions]

    assert states(agent) == states(other) == [State.ACTIVE, State.ACTIVE]
    world.declared["release"] = revoked
    assert states(agent) == states(other) == [State.REVOKED, State.ACTIVE]
    assert agent.catalogue is not None
    with pytest.raises(KeyRevoked):
        agent.catalogue.keys["release"].version(1, "sign")
    # What was seen revoked stays so, also when the settings forget it.
    world.declared["release"] = settings
    assert states(agent) == [State.REVOKED, State.ACTIVE]
    # Without records, another agent knows only what its own settings and memory say.
    assert agent.change(Revoke("release", 2, "lost"), ALL) is not None
    assert states(agent) == [State.REVOKED, State.REVOKED]
    assert states(other) == [State.REVOKED, State.ACTIVE]
