"""A worker starts often and alone: it loads neither the server's modules nor the supervisor's."""

import subprocess
import sys
from pathlib import Path

import keycustody

_ROOT = str(Path(keycustody.__path__[0]).parent)
_CODE = """
import sys
import keycustody.token.worker, keycustody.token.hsm
unwanted = {"asyncio", "google", "grpc", "pydantic", "uvloop", "PyKCS11", "click", "structlog"}
print(*sorted(unwanted & sys.modules.keys()))
"""


def test_a_worker_imports_only_what_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CODE],
        env={"PYTHONPATH": _ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
