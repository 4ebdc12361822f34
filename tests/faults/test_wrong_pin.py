"""A wrong PIN, workers killed in the middle of logins, restarts, two at once: one `C_Login`.

A PIN that was right once, and was then changed on the token behind our back, is another matter: a
login that was killed does not tell it from the right one, which must come back on its own. On
SoftHSM, which shows wrong PINs, one such `C_Login` that reaches the token is the last, and of those
that are killed before they reach it there are three.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.agents import behind_shim
from tests.faults.control import ALWAYS, Action, Control, Fault
from tests.faults.errors import CKR
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
    pin = sys.stdin.buffer.read()
    pool = Pool(settings, lambda: pin, PinGuard(Path(state)))
    await pool.start()
    await pool.close()

try:
    asyncio.run(main())
except KeycustodyError as error:
    sys.exit(error.code)
"""

Start = Callable[[], "subprocess.Popen[bytes]"]


def test_two_pools_that_share_a_state_folder(
    fresh_token: SoftHsmToken, shim: Path, control: Control
) -> None:
    start = _pools(fresh_token, shim, control, b"the wrong PIN")
    assert _logins(control, start, POOL_RESTARTS) == 1
    # Nobody tried: the guard says so before.
    assert b"PIN_GUARDED" in _said(start)
    assert control.calls("C_Login") == 1


def test_a_pin_that_was_right_once_and_never_gets_to_the_token(
    fresh_token: SoftHsmToken, shim: Path, control: Control
) -> None:
    start = _pools(fresh_token, shim, control, fresh_token.user_pin)
    assert _said(start) == b""
    _change_behind_our_back(fresh_token)
    assert _logins(control, start, POOL_RESTARTS) == 3
    before = control.calls("C_Login")
    assert b"PIN_GUARDED" in _said(start)
    assert control.calls("C_Login") == before


def test_a_pin_that_was_right_once_and_gets_there(
    fresh_token: SoftHsmToken, shim: Path, control: Control
) -> None:
    start = _pools(fresh_token, shim, control, fresh_token.user_pin)
    assert _said(start) == b""
    _change_behind_our_back(fresh_token)
    before = control.calls("C_Login")
    # The token's answer, that it is wrong, gets lost each time.
    control.set(Fault("C_Login", Action.RETURN_AFTER, CKR["DEVICE_ERROR"], times=ALWAYS))
    for _ in range(POOL_RESTARTS):
        both = [start(), start()]
        assert all(b"PIN_GUARDED" in one.communicate(timeout=60)[1] for one in both)
    assert control.calls("C_Login") == before + 1


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


def _pools(token: SoftHsmToken, shim: Path, control: Control, pin: bytes) -> Start:
    """What starts a process with a pool that logs in with that PIN."""
    environment = token.environment | {
        "FAULTS_MODULE": token.module,
        "FAULTS_CONTROL": str(control.path),
    }
    given = [str(shim), token.label, str(token.state)]
    given += [f"{name}={value}" for name, value in environment.items()]

    def start() -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            [sys.executable, "-c", _POOL, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert started.stdin is not None
        started.stdin.write(pin)
        started.stdin.close()
        started.stdin = None  # `communicate` would close it again
        return started

    return start


def _said(start: Start) -> bytes:
    with start() as one:
        return one.communicate(timeout=60)[1]


_CHANGE = """
import sys
import pkcs11

module, label, old, new = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=label).open(rw=True, user_pin=old) as session:
    session.set_pin(old, new)
"""


def _change_behind_our_back(token: SoftHsmToken) -> None:
    given = [token.module, token.label, token.user_pin.decode(), "another PIN"]
    subprocess.run(
        [sys.executable, "-c", _CHANGE, *given], env=os.environ | token.environment, check=True
    )


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
