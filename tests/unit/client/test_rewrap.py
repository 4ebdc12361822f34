"""Rewrapping: what is asked, what of an envelope changes, and which answers are not believed."""

from collections.abc import Callable
from typing import Any

import pytest

import keycustody
from keycustody import errors
from keycustody.formats import envelope
from tests.unit.client.agent_double import AgentDouble

BOTH_DRIVERS = True

CONTEXT = {"tenant": "42"}


@pytest.fixture
def box(agent: keycustody.Agent, double: AgentDouble) -> bytes:
    """An envelope under version 1, of a key whose newest version is 2."""
    with agent.session("invoices", context=CONTEXT) as session:
        made = session.encrypt(b"secret")
    double.newest = 2
    return made


def test_only_the_slot_changes(agent: keycustody.Agent, box: bytes) -> None:
    moved = agent.rewrap(box, key="invoices", context=CONTEXT)
    header, start = envelope.parse(box)
    assert envelope.parse(moved)[0].version == 2
    assert moved[: len(header.fixed)] == box[: len(header.fixed)]
    assert moved[start:] == box[start:]
    assert agent.decrypt(moved, key="invoices", context=CONTEXT) == b"secret"


def test_a_header_alone_will_do_and_the_newest_stays(agent: keycustody.Agent, box: bytes) -> None:
    _, start = envelope.parse(box)
    moved = agent.rewrap(box[:start], key=keycustody.ANY, context=keycustody.ANY)
    assert len(moved) == start
    assert agent.rewrap(moved, key="invoices", context=CONTEXT) == moved


@pytest.mark.parametrize(
    ("required", "error"),
    [
        ({"key": "receipts"}, errors.UnexpectedKey),
        ({"context": {"tenant": "43"}}, errors.UnexpectedContext),
    ],
    ids=["key", "context"],
)
def test_what_is_not_expected_is_not_asked(
    agent: keycustody.Agent,
    double: AgentDouble,
    box: bytes,
    required: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        agent.rewrap(box, **({"key": "invoices", "context": CONTEXT} | required))
    assert double.count("RewrapSessionKeys") == 0


def test_wrapped_keys_in_batches_each_with_its_result(
    agent: keycustody.Agent, double: AgentDouble, box: bytes
) -> None:
    wrapped = envelope.parse(box)[0].wrapped_key
    moved = agent.rewrap_keys("invoices", 1, CONTEXT, [wrapped] * 1500 + [bytes(72)])
    assert double.count("RewrapSessionKeys") == 2
    assert moved.version == 2
    assert len(set(moved.outcomes[:1500])) == 1
    assert isinstance(moved.outcomes[-1], errors.WrappedKeyRejected)
    other = agent.rewrap_keys("invoices", 1, {"tenant": "43"}, [wrapped]).outcomes
    assert isinstance(other[0], errors.WrappedKeyRejected)


def _set(**values: Any) -> Callable[[Any], Any]:
    def tamper(response: Any) -> Any:
        for name, value in values.items():
            setattr(response, name, value)
        return response

    return tamper


def _first(edit: Callable[[Any], None]) -> Callable[[Any], Any]:
    def tamper(response: Any) -> Any:
        edit(response.results[0])
        return response

    return tamper


def _shorten(result: Any) -> None:
    result.wrapped_key = result.wrapped_key[:71]


def _drop(response: Any) -> Any:
    del response.results[:]
    return response


@pytest.mark.parametrize(
    "tamper",
    [
        _set(version=0),
        _first(_shorten),
        _first(lambda result: result.ClearField("wrapped_key")),
        _drop,
    ],
    ids=["older version", "length", "empty", "count"],
)
def test_answers_that_are_not_believed(
    agent: keycustody.Agent, double: AgentDouble, box: bytes, tamper: Callable[[Any], Any]
) -> None:
    double.tamper["RewrapSessionKeys"] = tamper
    with pytest.raises(errors.InternalError):
        agent.rewrap(box, key="invoices", context=CONTEXT)


def test_a_rotation_in_the_middle_is_asked_again(
    agent: keycustody.Agent, double: AgentDouble, box: bytes
) -> None:
    wrapped = envelope.parse(box)[0].wrapped_key

    def rotate(response: Any) -> Any:
        double.newest = 3
        return response

    double.tamper["RewrapSessionKeys"] = rotate
    moved = agent.rewrap_keys("invoices", 1, CONTEXT, [wrapped] * 1500)
    assert (moved.version, len(set(moved.outcomes))) == (3, 1)
