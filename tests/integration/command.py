"""The `keycustody` command in a prepared folder, a running agent, and what tests ask of them."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

import keycustody
from keycustody.config import load
from keycustody.custody.audit import Journal, draft
from keycustody.custody.clock import Clock

PROJECT = Path(__file__).parents[2]

#: Beyond what the shipped settings declare: every other kind of key, and somebody without grants.
MORE_SETTINGS = """
[audit]
denials = {per_second = 1000, burst = 1000}

[principals.stranger]

[keys.p384]
owner = "tests"
rotation_days = 365
purpose = "sign"
algorithm = "EC_P384"
prehashed = true

[keys.rsa2048]
owner = "tests"
rotation_days = 365
purpose = "sign"
algorithm = "RSA_2048"
prehashed = true

[keys.rsa4096]
owner = "tests"
rotation_days = 365
purpose = "sign"
algorithm = "RSA_4096"
prehashed = true

[keys.strict]
owner = "tests"
rotation_days = 365
purpose = "sign"
algorithm = "EC_P256"

[keys.secret]
owner = "tests"
rotation_days = 365
purpose = "wrap"

[[grants]]
name = "test-more"
principals = ["demo"]
keys = ["p384", "rsa2048", "rsa4096", "strict", "secret"]
operations = ["read", "sign"]
"""


#: The shipped policy does not permit signing with RSA-2048.
MORE_POLICY = """
[[exceptions]]
key = "rsa2048"
rule = "key-algorithm"
reason = "Tests sign with every kind of key."
approver = "tests"
expires = {}
"""


#: One quick key: generating RSA keys is not what is tested here.
FEW_KEYS = """
[agent]
state_dir = "../var/state"
run_dir = "../var/run"
[token]
profile = "softhsm2"
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "keycustody-test"
pin = { file = "../var/pin" }
so_pin = { file = "../var/so-pin" }
environment = { SOFTHSM2_CONF = "{config_dir}/../var/softhsm/softhsm2.conf" }
[principals.demo]
[keys.release]
purpose = "sign"
algorithm = "EC_P256"
[[grants]]
principals = ["demo"]
keys = ["*"]
operations = ["read", "sign"]
[limits]
scan_seconds = 1.0
"""


@dataclass(frozen=True)
class Command:
    """The `keycustody` command in a folder, with the environment of one who has read the README."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The settings in that folder."""
        return self.folder / "hsm_config" / "softhsm.toml"

    def socket(self, principal: str) -> Path:
        """That principal's socket."""
        return self.folder / "var" / "run" / principal / "agent.sock"

    def connect(self, principal: str) -> keycustody.Agent:
        """A client on that principal's socket."""
        return keycustody.connect(socket=self.socket(principal))

    def records(self) -> list[dict[str, Any]]:
        """The audit journal. A line without its end is being written, and no record yet."""
        files = sorted((self.folder / "var" / "state").glob("audit-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]

    def agent_pid(self) -> int:
        """The process id of the agent that serves here."""
        mark = str(self.config)
        return next(
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "serve" in (line := process.info["cmdline"] or []) and mark in line
        )

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "keycustody.cli", *arguments],
            check=False,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            env=os.environ | self.environment | environment,
            timeout=120,
        )

    def ok(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """Run it, have it succeed in silence on stderr, and return its output."""
        done = self(*arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done.stdout

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "keycustody.cli", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | self.environment,
        )


def soon() -> date:
    """A day that has not come yet, in any time zone."""
    return datetime.now(UTC).date() + timedelta(days=2)


def prepare(folder: Path, more: str = MORE_SETTINGS) -> Command:
    """A folder with the shipped settings, and SoftHSM's own below it; no token yet."""
    (folder / "hsm_config").mkdir(parents=True)
    shipped = (PROJECT / "hsm_config" / "softhsm.toml").read_text()
    quick = shipped.replace("scan_seconds = 15.0", "scan_seconds = 1.0")
    command = Command(folder, {"KEYCUSTODY_SOCKET": str(folder / "var/run/demo/agent.sock")})
    command.config.write_text(quick + more)
    policy = (PROJECT / "hsm_config" / "crypto_policy.toml").read_text()
    (folder / "hsm_config" / "crypto_policy.toml").write_text(policy + MORE_POLICY.format(soon()))
    subprocess.run([PROJECT / "softhsm" / "setup.sh", folder / "var" / "softhsm"], check=True)
    return command


@contextmanager
def running(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent for the length of the block, from when it answers."""
    with command.start("serve", "--config", command.config) as agent:
        try:
            wait_ready(command, agent)
            yield agent
        finally:
            agent.terminate()


def set_ahead(command: Command, **delta: float) -> None:
    """Have the journal end later than now: for an agent that starts then, the system's clock was
    set back by that much."""
    settings = load(command.config)

    async def write() -> None:
        async with Journal(settings.agent.state_dir) as journal:
            journal.clock = Clock((datetime.now(UTC) + timedelta(**delta)).timestamp())
            await journal.append(
                draft(request="0" * 32, principal="p", via="test", operation="later", rules="")
            )

    asyncio.run(write())


def refused(done: subprocess.CompletedProcess[bytes], code: str) -> None:
    """Assert that it failed with one line on stderr, that code, and nothing on stdout."""
    line = rf"keycustody: [^\n]+ \[{code}\]( \(request [0-9a-f]{{32}}\))?\n"
    assert re.fullmatch(line, done.stderr.decode()), done.stderr.decode()
    assert done.returncode in (1, 3, 4)
    assert done.stdout == b""


def wait_ready(command: Command, agent: subprocess.Popen[bytes]) -> None:
    """Wait until the agent answers, or fail with what it said."""
    deadline = time.monotonic() + 60
    while command("status").returncode != 0:
        if agent.poll() is not None or time.monotonic() > deadline:
            agent.kill()
            pytest.fail(f"the agent did not come up: {agent.communicate()!r}")
        time.sleep(0.1)


def on_terminal(
    command: Command, *arguments: str | Path, typed: str = "", status: int = 0
) -> bytes:
    """Run the command on a terminal of its own; return all that appeared there."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "keycustody.cli", *arguments],
        cwd=command.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | command.environment | {"TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while True:
            shown += os.read(ours, 4096)
            # Typed only when asked: what comes before the prompt would be echoed.
            if typed and b": " in shown:
                os.write(ours, typed.encode() + b"\n")
                typed = ""
    except OSError:
        pass  # the other end was closed
    finally:
        os.close(ours)
    assert child.wait(timeout=30) == status, shown.decode()
    return shown
