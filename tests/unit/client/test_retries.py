"""What is sent again, for how long, and what is told at once; by both drivers."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import keycustody
from keycustody import errors
from keycustody.client import calls, channel
from keycustody.client.reach import nobody
from keycustody.client.retry import Attempts, Timing
from tests.unit.client.agent_double import AgentDouble, serving
from tests.unit.client.conftest import Connect

BOTH_DRIVERS = True


def failing(times: int, error: errors.KeycustodyError) -> Callable[[Any], Any]:
    """Refuse so many answers."""
    left = [error] * times

    def tamper(response: Any) -> Any:
        if left:
            raise left.pop()
        return response

    return tamper


#: Error, how often, and whether the caller gets to see it.
REFUSALS: dict[str, tuple[errors.KeycustodyError, int, bool]] = {
    "overloaded, with pushback": (errors.Overloaded("x", retry_after=0.05), 3, False),
    "overloaded for longer": (errors.Overloaded("x", retry_after=0.05), 12, False),
    "overloaded, without": (errors.Overloaded("x"), 3, False),
    "token away for a moment": (errors.TokenUnavailable("x", retry_after=0.01), 4, False),
    "token away": (errors.TokenUnavailable("x"), 9, True),
    "rate": (errors.RateExceeded("x", retry_after=0.01), 1, True),
    "budget": (errors.BudgetExceeded("x", retry_after=3600), 1, True),
    "internal": (errors.InternalError("x"), 1, True),
    "denied": (errors.PermissionDenied("x"), 1, True),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_an_idempotent_call(agent: keycustody.Agent, double: AgentDouble, what: str) -> None:
    error, times, seen = REFUSALS[what]
    double.tamper["Sign"] = failing(times, error)
    if not seen:
        assert agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        assert double.count("Sign") == times + 1
        return
    with pytest.raises(type(error)) as caught:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    assert caught.value.retry_after == error.retry_after
    assert double.count("Sign") == min(times, 5)


def test_a_new_session_key_is_not_made_twice(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.tamper["GenerateSessionKey"] = failing(1, errors.TokenUnavailable("x"))
    with pytest.raises(errors.TokenUnavailable):
        agent.session("invoices")
    assert double.count("GenerateSessionKey") == 1
    # Refused before anything was done, that is another matter.
    double.tamper["GenerateSessionKey"] = failing(2, errors.Overloaded("x", retry_after=0.05))
    assert agent.session("invoices").encrypt(b"x")


def test_no_pushback_is_waited_for_beyond_the_deadline(
    socket: Path, connect: Connect, double: AgentDouble
) -> None:
    double.tamper["GenerateSessionKey"] = failing(9, errors.Overloaded("x", retry_after=60.0))
    with connect(socket, timeout=5.0) as agent:
        with pytest.raises(errors.Overloaded):
            agent.session("invoices")
    assert double.count("GenerateSessionKey") == 1


def test_the_deadline_covers_all_attempts(
    socket: Path, connect: Connect, double: AgentDouble
) -> None:
    double.tamper["Sign"] = failing(10_000, errors.Overloaded("x", retry_after=0.02))
    started = time.monotonic()
    with connect(socket, timeout=0.5) as agent:
        with pytest.raises((errors.Overloaded, errors.DeadlineExceeded)):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    assert time.monotonic() - started < 5


def test_large_requests_are_repeated_too(agent: keycustody.Agent, double: AgentDouble) -> None:
    """gRPC by itself keeps no more than 256 KiB to send again."""
    double.tamper["Sign"] = failing(1, errors.TokenUnavailable("x"))
    assert len(agent.sign("release", [bytes(900_000)] * 4, algorithm="ECDSA_SHA_256")) == 4


def test_another_deadline_for_one_call(agent: keycustody.Agent, double: AgentDouble) -> None:
    go = threading.Event()
    double.tamper["Sign"] = lambda response: go.wait(10) and response
    with pytest.raises(errors.DeadlineExceeded):
        agent.within(0.2).sign("release", b"x", algorithm="ECDSA_SHA_256")
    go.set()
    assert agent.sign("release", b"x")


def test_an_agent_that_is_restarted_is_waited_for(
    double: AgentDouble, tmp_path: Path, connect: Connect
) -> None:
    path = tmp_path / "agent.sock"
    with connect(path, patience=8.0) as agent:
        with serving(double, path):
            agent.keys()
        again = serving(double, path)
        threading.Timer(0.5, again.__enter__).start()
        assert agent.sign("release", b"x")
        again.__exit__(None, None, None)
        with pytest.raises(errors.AgentUnreachable):
            agent.within(5.0).keys()


def test_closing_ends_the_calls_of_other_threads(
    socket: Path, connect: Connect, double: AgentDouble
) -> None:
    entered, go = threading.Event(), threading.Event()

    def held(response: Any) -> Any:
        entered.set()
        go.wait(20)
        return response

    double.tamper["Sign"] = held
    caught: list[str] = []
    agent = connect(socket, timeout=20)

    def sign() -> None:
        try:
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        except keycustody.KeycustodyError as error:
            caught.append(error.code)

    thread = threading.Thread(target=sign)
    thread.start()
    assert entered.wait(10)
    agent.close()
    thread.join(10)
    go.set()
    assert (caught, double.count("Sign")) == (["CANCELLED"], 1)


def test_a_closed_connection_is_not_waited_for(tmp_path: Path, connect: Connect) -> None:
    agent = connect(tmp_path / "absent.sock", timeout=30, patience=30)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            agent.keys()
        except keycustody.KeycustodyError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    threading.Event().wait(0.2)
    agent.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(caught[0], errors.AgentUnreachable)


#: Error, whether the call is idempotent, and the pause before the next attempt, if there is one.
JUDGED: list[tuple[errors.KeycustodyError, bool, float | None]] = [
    (nobody("x"), False, 0.1),
    (errors.AgentUnreachable("x"), True, None),
    (errors.AgentGone("x"), True, 0.1),
    (errors.AgentGone("x"), False, None),
    (errors.TokenUnavailable("x", retry_after=0.5), True, 0.5),
    (errors.TokenUnavailable("x"), False, None),
    (errors.Overloaded("x", retry_after=4.0), False, 4.0),
    (errors.Overloaded("x", retry_after=11.0), True, None),
    (errors.Overloaded("x"), True, None),
    (errors.DeadlineExceeded("x"), True, None),
    (errors.DecryptionFailed("x"), True, None),
]


@pytest.mark.parametrize("row", range(len(JUDGED)))
def test_what_is_sent_again(row: int) -> None:
    error, idempotent, pause = JUDGED[row]
    call: calls.Call[Any] = calls.list_keys() if idempotent else calls.reload()
    now = 0.0
    attempts = Attempts(call, Timing(10.0, patience=2.0), lambda: now)
    if pause is None:
        with pytest.raises(type(error)):
            attempts.pause(error)
        return
    assert attempts.pause(error) == pause
    now = 9.95  # neither patience nor deadline leave time for another
    with pytest.raises(type(error)):
        attempts.pause(error)
    assert attempts.left == pytest.approx(0.05)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"patience": -1}, {"timeout": float("nan")}])
def test_times_that_are_none(connect: Connect, wrong: dict[str, float]) -> None:
    with pytest.raises(errors.InvalidRequest):
        connect("/x", **wrong)


def test_only_what_may_be_repeated_is(agent: keycustody.Agent) -> None:
    config = json.loads(dict(channel.OPTIONS)["grpc.service_config"])
    named = {entry["method"] for entry in config["methodConfig"][0]["name"]}
    assert "Sign" in named
    assert not named & {"GenerateSessionKey", "ChangeKeys", "Reload"}
