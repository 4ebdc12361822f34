"""The README is true: its tour runs as it stands, and its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.integration.command import PROJECT

README = (PROJECT / "README.md").read_text()


def tour() -> str:
    """The tour's blocks as one shell script; Python blocks run where they stand."""
    text = README.partition("<!-- tour")[2].partition("<!-- end of tour -->")[0]
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    as_shell = {
        "bash": "{}",
        "python": "python - <<'END_OF_PYTHON'\n{}END_OF_PYTHON\n",
    }
    return "set -euo pipefail\n" + "".join(as_shell[kind].format(code) for kind, code in blocks)


@pytest.mark.slow
def test_the_tour_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("r")
    for name in ("hsm_config", "softhsm", "tools", "docs"):
        shutil.copytree(PROJECT / name, folder / name)
    (folder / "README.md").write_text(README)
    settings = folder / "hsm_config" / "softhsm.toml"
    # A look at the token each second, so that a rotation does not take a quarter of a minute.
    settings.write_text(settings.read_text().replace("scan_seconds = 15.0", "scan_seconds = 1.0"))
    # The folder's own .venv is the interpreter that runs the tests, whatever it is called.
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").write_text(f"PATH={commands}:$PATH\n")
    for name, module in (("python", ""), ("keycustody", "-m keycustody.cli ")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        (commands / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYCUSTODY_")}

    done = subprocess.run(
        # With a trap, so that a tour that fails half way leaves no agent behind.
        ["bash", "-c", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + tour()],
        check=False,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verified OK" in done.stdout
    assert "denied: no grant allows it" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_tour_is_more_than_one_block() -> None:
    assert tour().count("keycustody ") > 10
    assert "END_OF_PYTHON" in tour()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (PROJECT / link).exists()
