"""encrypt, decrypt, inspect: files and pipes; what is refused leaves nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.command import Command, on_terminal, refused

CONTEXT = ("--context", "tenant=42")
EXPECTED = ("--key", "invoices", *CONTEXT)
DATA = os.urandom(100_000)


@pytest.fixture
def encrypted(keycustody: Command, tmp_path: Path) -> Path:
    """An envelope of DATA under invoices, tenant=42."""
    (tmp_path / "in").write_bytes(DATA)
    keycustody.ok("encrypt", "invoices", tmp_path / "in", "-o", tmp_path / "kc", *CONTEXT)
    return tmp_path / "kc"


def test_a_file_comes_back(keycustody: Command, encrypted: Path, tmp_path: Path) -> None:
    keycustody.ok("decrypt", encrypted, "-o", tmp_path / "back", *EXPECTED)
    keycustody.ok("decrypt", encrypted, "-o", tmp_path / "any", "--any")
    keycustody.ok("decrypt", encrypted, "-o", tmp_path / "both", "--any", "--key", "invoices")

    assert DATA not in encrypted.read_bytes()
    for name in ("back", "any", "both"):
        assert (tmp_path / name).read_bytes() == DATA


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 3_000_000])
def test_pipes_of_any_size(keycustody: Command, size: int) -> None:
    data = os.urandom(size)

    envelope = keycustody.ok("encrypt", "invoices", "-", "-o", "-", *CONTEXT, stdin=data)

    assert keycustody.ok("decrypt", "-", "-o", "-", *EXPECTED, stdin=envelope) == data


def test_associated_data_is_needed_again(keycustody: Command, tmp_path: Path) -> None:
    envelope = keycustody.ok(
        "encrypt", "invoices", "-", "-o", "-", "--associated-data", "row 7", stdin=DATA
    )

    back = keycustody.ok(
        "decrypt", "-", "-o", "-", "--any", "--associated-data", "row 7", stdin=envelope
    )
    assert back == DATA
    refused(keycustody("decrypt", "-", "-o", "-", "--any", stdin=envelope), "DECRYPTION_FAILED")


def test_inspect_tells_and_needs_no_agent(keycustody: Command, encrypted: Path) -> None:
    told = json.loads(keycustody.ok("inspect", encrypted, "--json"))

    assert (told["key"], told["version"], told["context"]) == ("invoices", 1, {"tenant": "42"})
    assert keycustody("inspect", encrypted, KEYCUSTODY_SOCKET="/nowhere").returncode == 0


def _edit(data: bytes, offset: int) -> bytes:
    edited = bytearray(data)
    edited[offset] ^= 2
    return bytes(edited)


#: What is done to an envelope or asked of it, and the code that refuses it.
BAD: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...], str]] = {
    "other-key": (lambda e: e, ("--key", "secret", *CONTEXT), "UNEXPECTED_KEY"),
    "other-context": (
        lambda e: e,
        ("--key", "invoices", "--context", "tenant=43"),
        "UNEXPECTED_CONTEXT",
    ),
    "no-context": (lambda e: e, ("--key", "invoices"), "UNEXPECTED_CONTEXT"),
    "edited-context": (
        lambda e: e.replace(b"tenant", b"TENANT", 1),
        ("--any",),
        "WRAPPED_KEY_REJECTED",
    ),
    "edited-key-name": (
        lambda e: e.replace(b"invoices", b"secret..", 1),
        ("--any",),
        "KEY_NOT_FOUND|PERMISSION_DENIED",
    ),
    "edited-version": (
        lambda e: _edit(e, 8 + 1 + 2 + 2 + 8 + 2 + 14 + 3),
        ("--any",),
        "KEY_NOT_FOUND|WRAPPED_KEY_REJECTED",
    ),
    "edited-wrapped-key": (
        lambda e: _edit(e, 8 + 1 + 2 + 2 + 8 + 2 + 14 + 6),
        ("--any",),
        "WRAPPED_KEY_REJECTED",
    ),
    "edited-first-chunk": (lambda e: _edit(e, 300), ("--any",), "DECRYPTION_FAILED"),
    "edited-last-byte": (lambda e: _edit(e, -1), ("--any",), "DECRYPTION_FAILED"),
    "cut-in-body": (lambda e: e[:-1], ("--any",), "DECRYPTION_FAILED"),
    "cut-at-a-chunk": (lambda e: e[: 119 + 56 + 16400], ("--any",), "DECRYPTION_FAILED"),
    "cut-in-header": (lambda e: e[:50], ("--any",), "TRUNCATED_ENVELOPE"),
    "header-only": (lambda e: e[:119], ("--any",), "DECRYPTION_FAILED"),
    "empty": (lambda e: b"", ("--any",), "TRUNCATED_ENVELOPE"),
    "no-envelope": (lambda e: DATA, ("--any",), "MALFORMED_ENVELOPE"),
    "appended": (lambda e: e + b"x", ("--any",), "DECRYPTION_FAILED"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_leaves_nothing(
    keycustody: Command, encrypted: Path, tmp_path: Path, case: str
) -> None:
    change, expected, code = BAD[case]
    encrypted.write_bytes(change(encrypted.read_bytes()))
    before = set(tmp_path.iterdir())

    done = keycustody("decrypt", encrypted, "-o", tmp_path / "back", *expected)

    refused(done, f"({code})")
    assert set(tmp_path.iterdir()) == before


def test_a_pipe_that_fails_says_so(keycustody: Command, encrypted: Path) -> None:
    done = keycustody("decrypt", "-", "-o", "-", "--any", stdin=encrypted.read_bytes()[:-1])

    assert done.returncode == 3
    assert done.stderr.endswith(b" [DECRYPTION_FAILED]\n")
    assert DATA.startswith(done.stdout)
    assert len(done.stdout) < len(DATA)


def test_a_failed_decryption_keeps_the_file_that_was_there(
    keycustody: Command, encrypted: Path, tmp_path: Path
) -> None:
    (tmp_path / "back").write_bytes(b"precious")

    done = keycustody("decrypt", encrypted, "-o", tmp_path / "back", "--key", "secret")

    refused(done, "UNEXPECTED_KEY")
    assert (tmp_path / "back").read_bytes() == b"precious"


def test_outputs_that_cannot_be_written(
    keycustody: Command, encrypted: Path, tmp_path: Path
) -> None:
    for target in (tmp_path, tmp_path / "nowhere" / "back", Path("/dev/full")):
        before = set(tmp_path.iterdir())
        done = keycustody("decrypt", encrypted, "-o", target, "--any")
        refused(done, "FILE_UNUSABLE")
        assert set(tmp_path.iterdir()) == before


def test_a_reader_that_goes_away_ends_it_quietly(keycustody: Command) -> None:
    script = (
        "set -o pipefail; head -c 50000000 /dev/zero | "
        f"{sys.executable} -m keycustody.cli encrypt invoices - -o - | head -c 10 >/dev/null; "
        'echo "${PIPESTATUS[1]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        capture_output=True,
        env=os.environ | keycustody.environment,
    )

    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_a_terminal_gets_a_progress_bar(keycustody: Command, tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb") as large:
        large.truncate(100 * 2**20)

    shown = on_terminal(
        keycustody, "encrypt", "invoices", tmp_path / "in", "-o", tmp_path / "kc", *CONTEXT
    )

    assert b"encrypting" in shown
    assert b"MiB" in shown


def test_an_envelope_is_not_poured_over_a_terminal(keycustody: Command) -> None:
    shown = on_terminal(keycustody, "encrypt", "invoices", "/dev/null", "-o", "-", status=1)

    assert b"[FILE_UNUSABLE]" in shown
