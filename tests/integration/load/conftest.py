"""An agent with small limits, so that they are met, two principals on it, and a token that can be
held up: it is behind the shim of tests/faults."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from tests.faults.control import ALWAYS, Action, Control, Fault, build
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
MODULE = 'module = "/usr/lib/softhsm/libsofthsm2.so"'


@dataclass(frozen=True, kw_only=True)
class Loaded(Command):
    """The command, and what its token does wrong."""

    control: Control

    def hold_up(self) -> None:
        """Have the token sign nothing any more. Its workers are not taken to hang."""
        self.control.set(Fault("C_Sign", Action.HANG, times=ALWAYS))

    def let_go(self) -> None:
        """Have it sign again: what its workers had begun is done by others."""
        self.control.clear()
        for worker in psutil.Process(self.agent_pid()).children():
            worker.kill()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Settings, a token and its key; no agent yet."""
    command = prepare(tmp_path_factory.mktemp("load"), more="")
    command.config.write_text(SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    control = Control(command.folder / "control")
    loaded = Loaded(command.folder, command.environment, control=control)
    faulty = f'FAULTS_MODULE = "/usr/lib/softhsm/libsofthsm2.so", FAULTS_CONTROL = "{control.path}"'
    loaded.config.write_text(
        SETTINGS.replace(
            MODULE, f'module = "{build(loaded.folder)}"\nattempt_seconds = 120'
        ).replace("environment = { ", f"environment = {{ {faulty}, ")
    )
    return loaded


@pytest.fixture(scope="module")
def loaded(prepared: Loaded) -> Iterator[Loaded]:
    """The agent."""
    with running(prepared):
        yield prepared
