"""The real command against a real agent on a real SoftHSM token."""

import shutil
from collections.abc import Iterator

import pytest

from tests.integration.cli.command import Command, prepare, wait_ready


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A folder with a token that has every declared key; no agent runs there."""
    folder = tmp_path_factory.mktemp("cli")
    command = prepare(folder)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    yield command
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def keycustody(provisioned: Command) -> Iterator[Command]:
    """The command, beside a running agent."""
    agent = provisioned.start("serve", "--config", provisioned.config)
    wait_ready(provisioned, agent)
    yield provisioned
    agent.terminate()
    _, stderr = agent.communicate(timeout=30)
    assert agent.returncode == 0, stderr.decode()
