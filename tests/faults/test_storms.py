"""Sixteen clients while workers are killed and stopped, and while the token is away."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.agents import Clients, behind_shim, serving, strike
from tests.faults.control import Control
from tests.integration.agent.raw import channel
from tests.integration.command import Command

pytestmark = pytest.mark.slow

CLIENTS = 16
#: `pytest` has a few seconds; by hand it was a minute (docs/reliability.md).
STORM_SECONDS = 5.0
AWAY_SECONDS = 3.0
#: Service is back within two seconds, and health tells the truth within one; the machine is busy.
BACK_SECONDS = 4.0
TRUTH_SECONDS = 3.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Command:
    command = behind_shim(tmp_path_factory.mktemp("storm"), shim)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


@pytest.fixture(scope="module")
def control(own: Command) -> Control:
    return Control(own.folder / "control")


@pytest.fixture(scope="module")
def agent(own: Command) -> Iterator[int]:
    with serving(own) as process:
        yield process.pid


def test_no_idempotent_call_fails_when_workers_do(own: Command, agent: int) -> None:
    chance = random.Random(1)
    struck = 0
    with Clients(own, CLIENTS) as clients:
        end = time.monotonic() + STORM_SECONDS
        while time.monotonic() < end:
            struck += strike(agent, chance.choice((signal.SIGKILL, signal.SIGSTOP)), chance)
            time.sleep(1)
    assert clients.failed == {}
    assert struck >= STORM_SECONDS - 1
    assert clients.answered > 10 * CLIENTS


def test_a_token_that_was_away_serves_soon_after_it_is_back(
    own: Command, agent: int, control: Control
) -> None:
    with Clients(own, 4) as clients:
        _until(lambda: clients.answered > 0, BACK_SECONDS)
        with control.absent():
            _until(lambda: not _serving(own), TRUTH_SECONDS)
            time.sleep(AWAY_SECONDS)
            assert not _serving(own)
            failed = clients.failed.total()
        before = clients.answered
        _until(lambda: clients.answered > before, BACK_SECONDS)
        _until(lambda: _serving(own), BACK_SECONDS)
    assert failed > 0
    assert set(clients.failed) == {"TOKEN_UNAVAILABLE"}
    assert psutil.pid_exists(agent)


def _serving(own: Command) -> bool:
    with channel(own.socket("demo")) as opened:
        health: Any = health_pb2_grpc.HealthStub(opened)
        answer = health.Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _until(reached: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)
