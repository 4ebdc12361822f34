"""Secrets that a test knows, and everything else that an agent writes and shows."""

import base64
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.command import Command

#: One that others made, adopted as `old`; somebody without grants; everything that can be told.
SETTINGS = """
[metrics]
socket = "../var/run/metrics/metrics.sock"
[audit]
head_records = 5
[principals.stranger]
[keys.old]
purpose = "sign"
algorithm = "EC_P256"
owner = "tests@example.org"
rotation_days = 365
[[grants]]
principals = ["demo"]
keys = ["old"]
operations = ["read", "sign"]
"""


@dataclass
class Canaries:
    """What must be nowhere, by what it is."""

    known: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Make up a secret that is printable."""
        value = secrets.token_hex(16)
        self.add(name, value.encode())
        return value

    def add(self, name: str, value: bytes) -> None:
        """Take note of one."""
        assert len(value) >= 16
        self.known[name] = value

    def found(self, shown: Iterator[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Which of them is where, in any usual writing."""
        forms = {name: _forms(value) for name, value in self.known.items()}
        return [
            (name, where)
            for where, text in shown
            for name, written in forms.items()
            if any(form in text for form in written)
        ]


def _forms(value: bytes) -> set[bytes]:
    plain, urlsafe = base64.b64encode(value), base64.urlsafe_b64encode(value)
    # The last characters of Base64 depend on what follows.
    encoded = {text.rstrip(b"=")[:-1] for text in (plain, urlsafe)}
    hexadecimal = value.hex()
    return {
        value,
        repr(value)[2:-1].encode(),
        hexadecimal.encode(),
        hexadecimal.upper().encode(),
        *encoded,
    }


def import_key(command: Command, pin: str) -> bytes:
    """Put a key on the token from outside, with CKA_ID 0a01; return its private half."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = command.folder / "imported.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    subprocess.run(
        [
            *("softhsm2-util", "--import", file, "--token", "keycustody-dev"),
            *("--label", "old", "--id", "0a01", "--pin", pin),
        ],
        check=True,
        capture_output=True,
        env={"SOFTHSM2_CONF": str(command.folder / "var/softhsm/softhsm2.conf")},
    )
    file.unlink()
    return key.private_numbers().private_value.to_bytes(32, "big")


def of_processes(pid: int) -> Iterator[tuple[str, bytes]]:
    """Arguments and environment of an agent and its workers."""
    agent = psutil.Process(pid)
    workers = agent.children(recursive=True)
    assert workers
    for process in (agent, *workers):
        yield f"cmdline of {process.name()}", Path(f"/proc/{process.pid}/cmdline").read_bytes()
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except PermissionError:
            # Not dumpable: their own user may not look either, only root.
            assert os.geteuid() != 0
        else:
            yield f"environ of {process.name()}", environment


def of_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, but those that hold the PINs."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    files -= {folder / "var" / "pin", folder / "var" / "so-pin"}
    names = {path.name for path in files}
    assert {"audit.head", "known-tokens"} <= names, names
    assert any(name.startswith("audit-") for name in names)
    for path in files:
        yield str(path.relative_to(folder)), path.read_bytes()
