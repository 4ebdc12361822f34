"""strace, which kills a process at a chosen system call, where it is installed and may trace."""

import os
import shutil
import subprocess

import pytest


def _why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-o", os.devnull, "true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else ""


_WHY_NOT = _why_not()
needs_strace = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)


def killed_at(call: str, number: int) -> tuple[str, ...]:
    """What comes before a command, so that its `number`th such call kills it."""
    inject = f"inject={call}:signal=KILL:when={number}"
    return ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
