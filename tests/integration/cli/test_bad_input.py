"""Bad input: one line, a stable code, no traceback, nothing left behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import Command, refused

#: Arguments for a running agent, and the code that refuses them. {out} is where nothing may appear.
BAD = {
    "key-unknown": (("sign", "nobody", "{in}", "-o", "{out}"), "KEY_NOT_FOUND|PERMISSION_DENIED"),
    "key-name-malformed": (("sign", "No/Key", "{in}", "-o", "{out}"), "INVALID_REQUEST"),
    "key-of-another-purpose": (("sign", "hpke", "{in}", "-o", "{out}"), "KEY_PURPOSE"),
    "sign-with-a-wrap-key": (("sign", "invoices", "{in}", "-o", "{out}"), "KEY_PURPOSE"),
    "encrypt-with-a-sign-key": (("encrypt", "release", "{in}", "-o", "{out}"), "KEY_PURPOSE"),
    "csr-with-an-agree-key": (
        ("keys", "csr", "hpke", "--subject", "CN=a", "-o", "{out}"),
        "KEY_PURPOSE",
    ),
    "csr-subject-malformed": (
        ("keys", "csr", "release", "--subject", "nonsense", "-o", "{out}"),
        "INVALID_REQUEST",
    ),
    "csr-dns-malformed": (
        ("keys", "csr", "release", "--subject", "CN=a", "--dns", "ä.example", "-o", "{out}"),
        "INVALID_REQUEST",
    ),
    "operation-not-granted": (("encrypt", "secret", "{in}", "-o", "{out}"), "PERMISSION_DENIED"),
    "algorithm-unknown": (
        ("sign", "release", "{in}", "-o", "{out}", "--algorithm", "MD5"),
        "UNKNOWN_ALGORITHM",
    ),
    "algorithm-of-another-kind": (
        ("sign", "release", "{in}", "-o", "{out}", "--algorithm", "ED25519"),
        "ALGORITHM_MISMATCH",
    ),
    "raw-for-rsa": (
        ("sign", "archive", "{in}", "-o", "{out}", "--raw"),
        "INVALID_REQUEST|ALGORITHM_MISMATCH",
    ),
    "version-unknown": (
        ("sign", "release", "{in}", "-o", "{out}", "--version", "9"),
        "KEY_NOT_FOUND",
    ),
    "show-version-unknown": (
        ("keys", "show", "release", "--version", "9", "--pem"),
        "KEY_NOT_FOUND",
    ),
    "context-without-equals": (
        ("encrypt", "invoices", "{in}", "-o", "{out}", "--context", "x"),
        "INVALID_CONTEXT",
    ),
    "context-twice": (
        ("encrypt", "invoices", "{in}", "-o", "{out}", "--context", "a=1", "--context", "a=2"),
        "INVALID_CONTEXT",
    ),
    "context-too-long": (
        ("encrypt", "invoices", "{in}", "-o", "{out}", "--context", "a=" + "x" * 1025),
        "INVALID_CONTEXT",
    ),
    "context-key-empty": (
        ("encrypt", "invoices", "{in}", "-o", "{out}", "--context", "=x"),
        "INVALID_CONTEXT",
    ),
    "input-missing": (("sign", "release", "{out}", "-o", "{out}"), "FILE_UNUSABLE"),
    "input-is-a-folder": (("encrypt", "invoices", "{folder}", "-o", "{out}"), "FILE_UNUSABLE"),
    "output-folder-missing": (("sign", "release", "{in}", "-o", "{out}/sig"), "FILE_UNUSABLE"),
    "output-full": (("sign", "release", "{in}", "-o", "/dev/full"), "FILE_UNUSABLE"),
    "message-too-large": (("sign", "tokens", "{large}", "-o", "{out}"), "MESSAGE_TOO_LARGE"),
    "not-prehashed-and-too-large": (
        ("sign", "strict", "{large}", "-o", "{out}"),
        "MESSAGE_TOO_LARGE|INVALID_REQUEST",
    ),
    "signature-missing": (("verify", "release", "{in}", "{out}"), "FILE_UNUSABLE"),
    "public-key-is-none": (("verify", "--public-key", "{in}", "{in}", "{in}"), "INVALID_REQUEST"),
    "status-on-a-clients-socket": (("status", "--socket", "{socket}"), "UNIMPLEMENTED"),
    "socket-missing": (("keys", "list", "--socket", "{out}"), "AGENT_UNREACHABLE"),
    "socket-is-a-file": (("keys", "list", "--socket", "{in}"), "AGENT_UNREACHABLE"),
    "socket-path-too-long": (
        ("keys", "list", "--socket", "/tmp/" + "x" * 110),  # noqa: S108
        "AGENT_UNREACHABLE",
    ),
    "config-missing": (("serve", "--config", "{out}"), "CONFIG_INVALID"),
    "journal-missing": (("audit", "verify", "--file", "{out}"), "AUDIT_UNAVAILABLE"),
    "journal-is-none": (("audit", "verify", "--file", "{in}"), "AUDIT_CHAIN_BROKEN"),
    "second-agent": (("serve", "--config", "{config}"), "STATE_LOCKED"),
    "token-already-initialised": (
        ("token", "init", "--config", "{config}"),
        "STATE_LOCKED|TOKEN_INITIALISED",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(keycustody: Command, tmp_path: Path, case: str) -> None:
    arguments, code = BAD[case]
    (tmp_path / "in").write_bytes(b"data\n")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(2**20 + 1)
    places = {
        "in": tmp_path / "in",
        "out": tmp_path / "out",
        "large": tmp_path / "large",
        "folder": tmp_path,
        "config": keycustody.config,
        "socket": keycustody.environment["KEYCUSTODY_SOCKET"],
    }
    before = set(tmp_path.iterdir())

    done = keycustody(*(argument.format_map(places) for argument in arguments))

    refused(done, f"({code})")
    assert b"Traceback" not in done.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_stranger_sees_and_may_nothing(keycustody: Command, tmp_path: Path) -> None:
    stranger = ("--socket", keycustody.folder / "var/run/stranger/agent.sock")

    assert len(keycustody.ok("keys", "list", *stranger).splitlines()) == 1
    # Whether a key exists is not told to whom no grant lets see it.
    for key in ("release", "nobody"):
        done = keycustody("sign", key, "/dev/null", "-o", tmp_path / "out", *stranger)
        refused(done, "PERMISSION_DENIED")


def test_a_socket_that_nobody_listens_on(
    keycustody: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))

        done = keycustody("keys", "list", "--socket", path)

    refused(done, "AGENT_UNREACHABLE")
    assert done.returncode == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_socket_that_may_not_be_used(keycustody: Command) -> None:
    # All is imported before: the interpreter may be in a folder that only root may enter.
    code = (
        "import os, keycustody.cli.app, keycustody.client\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "keycustody.cli.main(['keys', 'list'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        env=os.environ | keycustody.environment,
    )

    refused(done, "AGENT_UNREACHABLE")


def test_a_journal_that_was_edited(keycustody: Command, tmp_path: Path) -> None:
    journal = next((keycustody.folder / "var/state").glob("audit-*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    copy = tmp_path / "audit.jsonl"
    copy.write_bytes(b"".join(lines[:1] + lines[2:]))

    done = keycustody("audit", "verify", "--file", copy)

    refused(done, "AUDIT_CHAIN_BROKEN")
    assert b"audit.jsonl, line 2" in done.stderr
    keycustody.ok("audit", "verify", "--config", keycustody.config)
