from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import keycustody
from keycustody import aio
from tests.unit.client.agent_double import AgentDouble, serving
from tests.unit.client.blocking import Blocking, Loop

Connect: TypeAlias = Callable[..., keycustody.Agent]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that says so by both drivers."""
    if "driver" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_DRIVERS", False):
        metafunc.parametrize("driver", ["sync", "aio"])


@pytest.fixture
def driver() -> str:
    return "sync"


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.end()


@pytest.fixture
def connect(driver: str, loop: Loop) -> Connect:
    """`keycustody.connect`, or `keycustody.aio.connect` with its surface."""
    if driver == "sync":
        return keycustody.connect

    def connected(*arguments: Any, **options: Any) -> Any:
        return Blocking(loop, aio.connect(*arguments, **options))

    return connected


@pytest.fixture
def double() -> AgentDouble:
    return AgentDouble()


@pytest.fixture
def socket(double: AgentDouble, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent.sock"
    with serving(double, path):
        yield path


@pytest.fixture
def agent(connect: Connect, socket: Path) -> Iterator[keycustody.Agent]:
    with connect(socket) as connected:
        yield connected
