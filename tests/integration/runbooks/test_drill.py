"""`make drill`: the machine is lost, and the data is not."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.integration.command import PROJECT


@pytest.mark.slow
def test_the_drill(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("d")
    for name in ("examples", "hsm_config", "softhsm", "tools"):
        shutil.copytree(PROJECT / name, folder / name)
    command = folder / ".venv" / "bin" / "keycustody"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m keycustody.cli "$@"\n')
    command.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYCUSTODY_")}

    done = subprocess.run(
        ["bash", "examples/drill.sh"],
        check=False,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it as it should be" in done.stdout
    assert done.stdout.count("[KEY_REVOKED]") > 1
    assert "Traceback" not in done.stderr
