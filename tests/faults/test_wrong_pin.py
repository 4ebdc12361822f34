"""A wrong PIN, workers killed in the middle of logins, restarts, two at once: one `C_Login`."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.agents import behind_shim
from tests.faults.control import ALWAYS, Action, Control, Fault
from tests.softhsm import SoftHsmToken

pytestmark = pytest.mark.slow

#: An agent takes seconds to start, and its pool is the same.
POOL_RESTARTS, AGENT_RESTARTS = 5, 2
#: Long enough to be killed in the middle of it.
LOGIN = Fault("C_Login", Action.DELAY, 1500, times=ALWAYS)

_POOL = """
import asyncio, sys
from pathlib import Path
from keycustody.errors import KeycustodyError
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool, PoolSettings

async def main():
    shim, label, state, *environment = sys.argv[1:]
    settings = PoolSettings(
        module=shim, profile="softhsm2", label=label, workers=4,
        environment=dict(one.split("=", 1) for one in environment),
    )
    pool = Pool(settings, lambda: b"the wrong PIN", PinGuard(Path(state)))
    await pool.start()

try:
    asyncio.run(main())
except KeycustodyError as error:
    sys.exit(error.code)
"""

Start = Callable[[], "subprocess.Popen[bytes]"]


def test_two_pools_that_share_a_state_folder(
    fresh_token: SoftHsmToken, shim: Path, control: Control
) -> None:
    environment = fresh_token.environment | {
        "FAULTS_MODULE": fresh_token.module,
        "FAULTS_CONTROL": str(control.path),
    }
    given = [str(shim), fresh_token.label, str(fresh_token.state)]
    given += [f"{name}={value}" for name, value in environment.items()]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _POOL, *given],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    assert _logins(control, start, POOL_RESTARTS) == 1
    # Nobody tried: the guard says so before.
    with start() as last:
        assert b"PIN_GUARDED" in last.communicate(timeout=60)[1]
    assert control.calls("C_Login") == 1


def test_an_agent_and_a_second_one_beside_it(
    tmp_path_factory: pytest.TempPathFactory, shim: Path
) -> None:
    command = behind_shim(tmp_path_factory.mktemp("pin"), shim, workers=4)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    control = Control(command.folder / "control")
    (command.folder / "var" / "pin").write_bytes(b"the wrong PIN")

    def start() -> subprocess.Popen[bytes]:
        return command.start("serve", "--config", command.config)

    assert _logins(control, start, AGENT_RESTARTS) == 1


def _logins(control: Control, start: Start, restarts: int) -> int:
    """Start two, kill them while one logs in, and so on; returns how many logins were begun."""
    before = control.calls("C_Login")
    control.set(LOGIN)
    for _ in range(restarts + 1):
        seen = control.calls("C_Login")
        both = [start(), start()]
        try:
            end = time.monotonic() + 60
            while control.calls("C_Login") == seen and any(one.poll() is None for one in both):
                assert time.monotonic() < end, "it neither logs in nor gives up"
                time.sleep(0.01)
        finally:
            for one in both:
                _kill(one)
    control.clear()
    return control.calls("C_Login") - before


def _kill(parent: subprocess.Popen[bytes]) -> None:
    """Kill the workers first, while there is somebody to start others in their place."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(parent.pid).children()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    if children:
        time.sleep(0.5)
    parent.kill()
    parent.communicate()
