"""How commands end before their time: interrupted, terminated, without the agent's extras or it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import FEW_KEYS, Command, prepare, refused, wait_ready

#: The command where only `keycustody[cli]` is installed.
CLIENT_ONLY = """
import sys
for module in ("PyKCS11", "msgspec", "pkcs11", "pydantic", "structlog", "uvloop"):
    sys.modules[module] = None
from keycustody.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "list"],
        ["keys", "show", "release", "--jwk"],
        ["keys", "csr", "release", "--subject", "CN=a"],
        ["sign", "release", "-", "-o", "-"],
        ["encrypt", "invoices", "-", "-o", "-"],
        ["status"],
    ],
    ids=" ".join,
)
def test_the_clients_commands_need_no_agent_extras(
    keycustody: Command, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT_ONLY, *arguments],
        check=False,
        input=b"data",
        capture_output=True,
        env=os.environ | keycustody.environment,
    )

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("beyond", [0, 1], ids=["blocks", "more"])
def test_what_is_interrupted_is_quiet_and_leaves_nothing(
    keycustody: Command, tmp_path: Path, number: int, status: int, beyond: int
) -> None:
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "keycustody.cli", "encrypt", "invoices", "-", "-o", out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | keycustody.environment,
    )
    assert child.stdin is not None
    # More than a pipe holds: once it is written, the command is in the middle of its work.
    child.stdin.write(bytes(4 * 2**20 + beyond))
    child.stdin.flush()

    child.send_signal(number)

    assert child.wait(timeout=20) == status
    assert child.communicate() == (b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A provisioned folder for agents that this test may kill."""
    made = prepare(tmp_path_factory.mktemp("e"))
    made.config.write_text(FEW_KEYS)
    made.ok("token", "init", "--config", made.config)
    made.ok("keys", "apply", "--config", made.config)
    return made


def test_an_agent_that_was_killed_is_missed_and_comes_back(
    command: Command,
) -> None:
    first = command.start("serve", "--config", command.config)
    wait_ready(command, first)

    first.kill()
    first.communicate()
    done = command("keys", "list")
    refused(done, "AGENT_UNREACHABLE")
    assert done.returncode == 4

    second = command.start("serve", "--config", command.config)
    wait_ready(command, second)
    command.ok("keys", "list")
    command.ok("audit", "verify", "--config", command.config)
    second.terminate()
    second.communicate(timeout=30)
    assert second.returncode == 0
