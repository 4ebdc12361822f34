"""`make demo` and `make drill`: each ends as it should only if every step did what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import PROJECT


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scripts need of a clone."""
    folder = tmp_path_factory.mktemp("d")
    for name in ("examples", "hsm_config", "softhsm", "tools"):
        shutil.copytree(PROJECT / name, folder / name)
    shutil.copy(PROJECT / "README.md", folder)
    command = folder / ".venv" / "bin" / "keycustody"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m keycustody.cli "$@"\n')
    command.chmod(0o755)
    return folder


def run(clone: Path, script: str, **more: str) -> str:
    """Run a script of examples/ in a clone; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYCUSTODY_")}
    done = subprocess.run(
        ["bash", f"examples/{script}"],
        check=False,
        cwd=clone,
        env=environment | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it as it should be" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_demo(clone: Path) -> None:
    said = run(clone, "demo.sh", MEBIBYTES="8")
    for code in ("INVALID_SIGNATURE", "UNEXPECTED_CONTEXT", "WRAPPED_KEY_REJECTED"):
        assert f"[{code}]" in said
    assert "[AUDIT_TRUNCATED]" in said


@pytest.mark.slow
def test_the_drill(clone: Path) -> None:
    """The machine is lost, and the data is not."""
    said = run(clone, "drill.sh")
    assert said.count("[KEY_REVOKED]") == 3
    assert "missing: invoices.v2" in said
    assert len(re.findall(r"signed heads? fits? it", said)) == 2
