"""One real agent on a real SoftHSM token, which the tests of all folders share."""

from collections.abc import Iterator

import pytest

import keycustody as client
from tests.integration.command import Command, prepare, running


@pytest.fixture(scope="session")
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command in a folder where every declared key is there and an agent serves."""
    command = prepare(tmp_path_factory.mktemp("shared"))
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


@pytest.fixture
def agent(keycustody: Command) -> Iterator[client.Agent]:
    """A client of that agent."""
    with keycustody.connect("demo") as connected:
        yield connected
