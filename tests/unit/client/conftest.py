from collections.abc import Iterator
from pathlib import Path

import pytest

import keycustody
from tests.unit.client.agent_double import AgentDouble, serving


@pytest.fixture
def double() -> AgentDouble:
    return AgentDouble()


@pytest.fixture
def socket(double: AgentDouble, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent.sock"
    with serving(double, path):
        yield path


@pytest.fixture
def agent(socket: Path) -> Iterator[keycustody.Agent]:
    with keycustody.connect(socket) as connected:
        yield connected
