"""A rotation through a running agent, whose workers or which itself dies at some moment of it."""

import json
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.integration.command import FEW_KEYS, Command, prepare, running

pytestmark = pytest.mark.slow

#: Seconds from the record of the intent until the blow falls.
MOMENTS = (0.0, 0.02)


@pytest.fixture(scope="module")
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A token of its own, with a key that has two objects and a witness."""
    command = prepare(tmp_path_factory.mktemp("i"))
    command.config.write_text(FEW_KEYS + '[keys.invoices]\npurpose = "wrap"\n')
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


def kill_workers(agent: psutil.Process) -> None:
    for worker in agent.children():
        worker.kill()


def kill_agent(agent: psutil.Process) -> None:
    agent.kill()
    agent.wait()


def intended(record: dict[str, Any]) -> bool:
    return record["operation"] == "rotate" and "intent: " in record["detail"]


@pytest.mark.parametrize("kill", [kill_workers, kill_agent])
def test_what_a_death_leaves_is_finished_or_cleared(
    keycustody: Command, kill: Callable[[psutil.Process], None]
) -> None:
    command = keycustody
    for moment in MOMENTS:
        with running(command) as agent:
            before = len(command.records())
            rotation = command.start(
                "keys", "rotate", "invoices", "--socket", command.socket("admin")
            )
            deadline = time.monotonic() + 30
            while not any(intended(one) for one in command.records()[before:]):
                assert time.monotonic() < deadline
            time.sleep(moment)
            kill(psutil.Process(agent.pid))
            _, stderr = rotation.communicate(timeout=60)
            # It was made, or it can be asked for again; never a fault of ours.
            assert rotation.returncode in (0, 4), stderr.decode()
        command.ok("keys", "apply", "--config", command.config)
    found = json.loads(command.ok("keys", "plan", "--json", "--config", command.config))
    assert found == {"steps": [], "findings": []}
    seen = json.loads((command.folder / "var/state/seen.json").read_text())
    assert seen["making"] == {}
    numbers = sorted(
        int(label.rpartition(".v")[2])
        for label in seen["versions"]
        if label.startswith("invoices.v")
    )
    assert numbers == list(range(1, len(numbers) + 1))
    command.ok("audit", "verify", "--config", command.config)
