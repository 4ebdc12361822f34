"""Session keys are renewed before their lease ends, and serve while the agent is away."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import keycustody
from keycustody import errors
from keycustody.formats import envelope
from tests.unit.client.agent_double import AgentDouble, serving
from tests.unit.client.conftest import Connect

BOTH_DRIVERS = True
#: Ten messages; the next key is due with the ninth.
TEN = (3600, 10, 2**40)


def until(true: Callable[[], object]) -> None:
    """Wait for what another thread or task does."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def code_of(session: keycustody.Session) -> str:
    """Why it is degraded."""
    return session.degraded.code if session.degraded else ""


def wrapped(box: bytes) -> bytes:
    return envelope.parse(box)[0].wrapped_key


def test_nobody_waits_for_a_renewal(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.lease = TEN
    go = threading.Event()
    with agent.session("invoices") as session:
        double.tamper["GenerateSessionKey"] = lambda response: go.wait(20) and response
        before = {wrapped(session.encrypt(b"x")) for _ in range(10)}
        until(lambda: double.count("GenerateSessionKey") == 2)
        assert len(before) == 1
        go.set()
        until(lambda: wrapped(session.encrypt(b"x")) not in before)
        assert session.degraded is None
    assert double.count("GenerateSessionKey") == 2


def test_an_agent_that_is_away(
    double: AgentDouble, tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "keycustody")
    double.lease = TEN
    path = tmp_path / "agent.sock"
    with connect(path) as agent:
        with serving(double, path):
            session = agent.session("invoices")
            assert session.encrypt(b"x")
        for _ in range(9):
            assert session.encrypt(b"x")
        until(lambda: code_of(session) == "AGENT_UNREACHABLE")
        with pytest.raises(errors.SessionEnded):
            session.encrypt(b"x")
        with pytest.raises(errors.SessionEnded) as caught:
            session.encrypt(b"x")
        assert caught.value.retryable
        assert "lease ended" in caught.value.message
        assert "There is no socket" in caught.value.message
        with serving(double, path):
            assert session.encrypt(b"x")
            assert code_of(session) == ""
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]


def test_a_file_after_the_lease_ended(
    double: AgentDouble, tmp_path: Path, connect: Connect
) -> None:
    double.lease = (3600, 0, 0)
    path = tmp_path / "agent.sock"
    (tmp_path / "in").write_bytes(b"x")
    with connect(path) as agent:
        with serving(double, path):
            session = agent.session("invoices")
        with pytest.raises(errors.SessionEnded):
            session.encrypt_file(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refusal_is_told_as_it_is(agent: keycustody.Agent, double: AgentDouble) -> None:
    """The agent is there, and says no: what it says, once the lease ended."""
    double.lease = TEN

    def refuse(response: Any) -> Any:
        raise errors.KeyRevoked("Revoked.", request_id="1" * 32)

    with agent.session("invoices") as session:
        double.tamper["GenerateSessionKey"] = refuse
        for _ in range(10):
            session.encrypt(b"x")
        until(lambda: session.degraded is not None)
        with pytest.raises(errors.KeyRevoked) as caught:
            session.encrypt(b"x")
    assert caught.value.request_id == "1" * 32


def test_an_idle_session_asks_for_nothing(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.lease = (1, 10, 2**40)
    with agent.session("invoices") as session:
        session.encrypt(b"x")
        time.sleep(1.1)
        assert double.count("GenerateSessionKey") == 1
        assert session.encrypt(b"x")


def test_closing_during_a_renewal(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.lease = TEN
    go = threading.Event()
    session = agent.session("invoices")
    double.tamper["GenerateSessionKey"] = lambda response: go.wait(20) and response
    for _ in range(9):
        session.encrypt(b"x")
    until(lambda: double.count("GenerateSessionKey") == 2)
    session.close()
    agent.close()
    go.set()
    with pytest.raises(errors.SessionEnded, match="closed"):
        session.encrypt(b"x")


def test_threads_that_do_everything_at_once(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.lease = (3600, 20, 2**40)
    failures: list[BaseException] = []
    session = agent.session("invoices", context={"tenant": "42"})

    def work(number: int) -> None:
        text = str(number).encode()
        try:
            for _ in range(25):
                box = session.encrypt(text, associated_data=text)
                assert text == agent.decrypt(
                    box, key="invoices", context={"tenant": "42"}, associated_data=text
                )
                assert agent.sign("release", text)
                agent.key("release")
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    # 300 messages; a key serves twenty, or sixteen where its successor came early.
    assert 15 <= double.count("GenerateSessionKey") <= 22
