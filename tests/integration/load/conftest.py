"""An agent with small limits, so that they are met, and two principals on it."""

from collections.abc import Iterator

import pytest

from tests.integration.command import FEW_KEYS, Command, prepare, running

TWO_PRINCIPALS = FEW_KEYS.replace(
    "[principals.demo]", "[principals.demo]\n[principals.quiet]"
).replace('principals = ["demo"]', 'principals = ["demo", "quiet"]')

SETTINGS = (
    TWO_PRINCIPALS
    + """
queue = 600
queue_per_principal = 300
concurrency = 16
concurrency_per_principal = 8
arrival_seconds = 1.0
drain_seconds = 5.0
connections = 200
[metrics]
socket = "../var/run/metrics/metrics.sock"
"""
)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Settings, a token and its key; no agent yet."""
    command = prepare(tmp_path_factory.mktemp("load"), more="")
    command.config.write_text(SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


@pytest.fixture(scope="module")
def loaded(prepared: Command) -> Iterator[Command]:
    """The agent."""
    with running(prepared):
        yield prepared
