"""What a process does about itself, seen from inside one."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_CODE = """
import ctypes, json, resource
from pathlib import Path
from keycustody.token.hardening import harden
unlocked = harden()
kept = bytearray(2**20)  # allocated after, and locked all the same
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "unlocked": unlocked,
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),  # PR_GET_DUMPABLE
    "no_new_privileges": int(status["NoNewPrivs"]),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "locked_kb": int(status["VmLck"].split()[0]),
    "resident_kb": int(status["VmRSS"].split()[0]),
}))
"""

#: Capability 14, as /proc/self/status shows them.
_IPC_LOCK = 1 << 14


def hardened(*before: str) -> dict[str, Any]:
    """Harden a process, started by that command, and return how it is then."""
    done = subprocess.run(
        [*before, sys.executable, "-c", _CODE], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def may_lock() -> bool:
    with Path("/proc/self/status").open("rb") as status:
        (line,) = (line for line in status if line.startswith(b"CapEff:"))
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    return bool(int(line.split()[1], 16) & _IPC_LOCK) or unlimited


def test_no_core_no_debugger_no_privileges() -> None:
    found = hardened()
    assert (found["dumpable"], found["no_new_privileges"], found["core"]) == (0, 1, [0, 0])


@pytest.mark.skipif(not may_lock(), reason="this user may not lock memory")
def test_memory_is_locked_where_permitted_and_does_not_grow() -> None:
    found = hardened()
    assert found["unlocked"] == ""
    assert found["locked_kb"] > 1024
    # Each thread's whole stack and each arena would be resident; only what is used is.
    assert found["resident_kb"] < 64 * 1024


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY,
    reason="anybody may lock memory here",
)
def test_where_it_is_not_permitted_that_is_said() -> None:
    if os.geteuid() != 0:
        found = hardened()
    elif shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed (util-linux)")
    else:
        found = hardened("setpriv", "--bounding-set=-ipc_lock")
    assert found["unlocked"].startswith("RLIMIT_MEMLOCK is ")
    assert found["locked_kb"] == 0
    assert (found["dumpable"], found["core"]) == (0, [0, 0])
