"""A throwaway token below var/bench, and agents that serve it as they ship."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.children import PROJECT, running

FOLDER = PROJECT / "var" / "bench"
CONFIG = FOLDER / "hsm_config" / "softhsm.toml"
SOCKET = FOLDER / "var" / "run" / "demo" / "agent.sock"
PIN = FOLDER / "var" / "pin"
MODULE, LABEL = "/usr/lib/softhsm/libsofthsm2.so", "keycustody-dev"
MEMORY = Path("/dev/shm")  # noqa: S108 (a file system in memory; the folder in it is made safely)
KEYCUSTODY = [sys.executable, "-m", "keycustody.cli"]

#: The shipped policy does not permit RSA-2048.
_EXCEPTION = """
[[exceptions]]
key = "rsa2048"
rule = "key-algorithm"
reason = "The benchmarks measure it."
approver = "benchmarks"
expires = 2027-06-30
"""
_MORE = """
[keys.rsa2048]
owner = "benchmarks"
rotation_days = 365
purpose = "sign"
algorithm = "RSA_2048"
prehashed = true

[[grants]]
name = "benchmarks"
principals = ["demo"]
keys = ["*"]
operations = ["read", "sign", "agree", "generate", "unwrap"]
"""


def environment() -> dict[str, str]:
    """What programs need that use the token directly."""
    return os.environ | {"SOFTHSM2_CONF": str(FOLDER / "var" / "softhsm" / "softhsm2.conf")}


def provision(more: str = "") -> None:
    """Make the token and every key, from nothing."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    CONFIG.parent.mkdir(parents=True)
    shipped = PROJECT / "hsm_config"
    CONFIG.write_text((shipped / "softhsm.toml").read_text() + _MORE + more)
    policy = (shipped / "crypto_policy.toml").read_text()
    CONFIG.with_name("crypto_policy.toml").write_text(policy + _EXCEPTION)
    subprocess.run([PROJECT / "softhsm" / "setup.sh", FOLDER / "var" / "softhsm"], check=True)
    for command in (("token", "init"), ("keys", "apply")):
        subprocess.run(
            [*KEYCUSTODY, *command, "--config", CONFIG], check=True, stdout=subprocess.DEVNULL
        )


@contextmanager
def serving(config: Path = CONFIG) -> Iterator[int]:
    """Serve for the length of the block; gives the agent's process id."""
    with running([*KEYCUSTODY, "serve", "--config", str(config)], "ready") as agent:
        yield agent.pid


def variant(name: str, *changes: tuple[str, str]) -> tuple[Path, Path]:
    """Settings that differ from the shipped ones, with sockets of their own: file and socket."""
    config = CONFIG.with_name(f"{name}.toml")
    text = CONFIG.read_text().replace('"../var/run"', f'"../var/run-{name}"')
    for old, new in changes:
        if old not in text:
            sys.exit(f"benchmarks: the shipped settings have no {old}")
        text = text.replace(old, new)
    config.write_text(text)
    return config, FOLDER / "var" / f"run-{name}" / "demo" / "agent.sock"


@contextmanager
def p11_kit() -> Iterator[tuple[str, dict[str, str]] | None]:
    """Serve the token by p11-kit's remote module: what to load, and in which environment; None
    where that is not installed."""
    modules = sorted(Path("/usr/lib").glob("**/pkcs11/p11-kit-client.so"))
    if not modules or shutil.which("p11-kit") is None:
        yield None
        return
    socket = FOLDER / "p11-kit.sock"
    command = ["p11-kit", "server", "-f", "-n", str(socket), "-p", MODULE, f"pkcs11:token={LABEL}"]
    with running(command, "server_pid", environment()):
        yield str(modules[0]), environment() | {"P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"}


@contextmanager
def in_memory(state: Path) -> Iterator[Path]:
    """Serve the same token with the agent's state in memory; gives the socket."""
    config, socket = variant("memory", ('"../var/state"', f'"{state}"'))
    with serving(config):
        yield socket
