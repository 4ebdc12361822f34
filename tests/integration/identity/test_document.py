"""docs/identity.md is true: its authority, settings, client and revocation, as they stand there."""

import os
import re
import subprocess
import sys

import pytest

from tests.integration.command import FEW_KEYS, PROJECT, prepare, running
from tests.integration.identity.conftest import free_port

TEXT = (PROJECT / "docs" / "identity.md").read_text()
GRANT = """
[[grants]]
principals = ["billing"]
keys = ["*"]
operations = ["read"]
"""


@pytest.mark.slow
def test_the_document_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    blocks = re.findall(r"^```(bash|toml|python)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    kinds = [kind for kind, _ in blocks]
    assert kinds == ["bash", "toml", "bash", "python", "bash"]
    port = str(free_port())
    authority, settings, revoke, python, command = (
        code.replace("7443", port) for _, code in blocks
    )
    made = prepare(tmp_path_factory.mktemp("doc"), "")
    made.config.write_text(FEW_KEYS + GRANT + settings)
    (made.folder / "keycustody").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m keycustody.cli "$@"\n'
    )
    (made.folder / "keycustody").chmod(0o755)
    environment = os.environ | {"PATH": f"{made.folder}:{os.environ['PATH']}"}

    def run(script: str, folder: str = "tls") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", script],
            check=False,
            cwd=made.folder / folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert (done := run(authority, ".")).returncode == 0, done.stderr
    made.ok("token", "init", "--config", made.config)
    made.ok("keys", "apply", "--config", made.config)
    # Of what the page makes, none is warned of on its first day.
    assert b"[certificate-" not in made("check", made.config).stdout
    with running(made):
        script = f"{sys.executable} - <<'END'\n{python}END\n"
        assert (done := run(script)).stdout == "['release']\n", done.stderr
        assert "release" in (done := run(command)).stdout, done.stderr
        assert (done := run(revoke)).returncode == 0, done.stderr
        assert "[UNAUTHENTICATED]" in run(command).stderr
