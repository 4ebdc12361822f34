"""kill -9 at each change of the token: the next run finds a consistent token, nothing doubled."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.command import FEW_KEYS, Command, prepare
from tests.strace import killed_at, needs_strace

pytestmark = pytest.mark.slow

MORE = """
[keys.invoices]
purpose = "wrap"
destroy_wait_days = 0
"""


@pytest.fixture
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """An initialised token of its own. A long interval: a repeated rotation is the same one."""
    command = prepare(tmp_path_factory.mktemp("k"))
    few = FEW_KEYS.replace("scan_seconds = 1.0", "scan_seconds = 600.0")
    command.config.write_text(few + MORE)
    command.ok("token", "init", "--config", command.config)
    return command


def killed(command: Command, number: int, when: str, arguments: Sequence[str | Path]) -> bool:
    """Run it so that it dies there; whether it did."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.lifecycle.killed", str(number), when, *arguments],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | command.environment,
        timeout=120,
    )
    assert done.returncode in (0, -9), done.stderr.decode()
    return done.returncode == -9


def kill_everywhere(command: Command, arguments: Sequence[str | Path]) -> None:
    """Let each run die one change later than progress allows, then let it end."""
    deaths = 0
    for when in ("before", "after", "before", "after"):
        for number in (1, 2, 1):
            deaths += killed(command, number, when, arguments)
    assert deaths
    command.ok(*arguments)


def plan(command: Command) -> dict[str, object]:
    found = json.loads(command.ok("keys", "plan", "--json", "--config", command.config))
    assert isinstance(found, dict)
    return found


CLEAN: dict[str, object] = {"steps": [], "findings": []}


def test_apply_rotate_and_destroy_survive_being_killed(keycustody: Command) -> None:
    config = ("--config", keycustody.config)
    kill_everywhere(keycustody, ("keys", "apply", *config))
    assert plan(keycustody) == CLEAN
    seen = json.loads((keycustody.folder / "var/state/seen.json").read_text())
    assert seen["making"] == {}
    kill_everywhere(keycustody, ("keys", "rotate", "invoices", *config))
    assert plan(keycustody) == CLEAN
    seen = json.loads((keycustody.folder / "var/state/seen.json").read_text())
    versions = [label for label in seen["versions"] if label.startswith("invoices.")]
    assert sorted(versions) == ["invoices.v1", "invoices.v2"]
    revoke = ("keys", "revoke", "invoices", "--version", "1", "--reason", "lost", *config)
    kill_everywhere(keycustody, revoke)
    destroy = ("keys", "destroy", "invoices", "--version", "1", "--confirm", "invoices", *config)
    kill_everywhere(keycustody, destroy)
    assert plan(keycustody) == CLEAN
    # Each change was announced before it was made, and the chain is whole after each death.
    keycustody.ok("audit", "verify", "--config", keycustody.config)
    announced, done = set(), set()
    for record in keycustody.records():
        said, _, what = record["detail"].partition(": ")
        if said == "intent":
            announced.add((record["request"], what))
        elif said == "done":
            assert (record["request"], what) in announced
            done.add(what)
    assert done


@needs_strace
def test_what_the_module_leaves_half_made_is_nothing(keycustody: Command) -> None:
    """SoftHSM writes a new object's file anew for each of some twenty attributes: kill it there."""
    config = ("--config", keycustody.config)
    keycustody.ok("keys", "apply", *config)
    objects = keycustody.folder / "var/softhsm/tokens"
    before = len(list(objects.glob("*/*.object")))
    rotate = (sys.executable, "-m", "keycustody.cli", "keys", "rotate", "invoices", *config)
    for number in (7, 30, 60):
        subprocess.run(
            [*killed_at("ftruncate", number), *rotate],
            check=False,
            capture_output=True,
            env=os.environ | keycustody.environment,
            timeout=120,
        )
        keycustody.ok("keys", "apply", *config)
        assert plan(keycustody) == CLEAN
    assert len(list(objects.glob("*/*.object"))) > before
