"""Lets the intruder's program do something to a token, in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.integration.token import intruder
from tests.softhsm import SoftHsmToken

_SCRIPT = Path(intruder.__file__)
_ROOTS = [str(_SCRIPT.parents[3] / "agent"), str(_SCRIPT.parents[3])]


def intrude(
    token: SoftHsmToken, action: str, label: str, id_: bytes, *more: str, pin: bool
) -> bytes:
    """Do that action, with the PIN or without; returns the public key that it made, if any."""
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            str(_SCRIPT),
            action,
            token.module,
            token.label,
            token.user_pin.decode() if pin else "-",
            label,
            id_.hex(),
            *more,
        ],
        env={"PYTHONPATH": ":".join(_ROOTS), **token.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return bytes.fromhex(done.stdout.strip())
