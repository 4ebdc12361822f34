"""`inspect`: any bytes, base dependencies and click only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from keycustody.formats.envelope import Header

HEADER = Header.of("invoices", {"tenant": "42", "note": "a\x1b[31mred\n"}, 7, bytes(range(72)))

#: Loads the command as where only the client and click are installed.
CLIENT_ONLY = (
    "import sys\n"
    "for m in ('rich','grpc','google','msgspec','pkcs11','pydantic','structlog','uvloop'):\n"
    "    sys.modules[m] = None\n"
    "from keycustody.cli import main; main()"
)


def inspect(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `keycustody inspect`."""
    command = [sys.executable, "-c", CLIENT_ONLY, "inspect", *arguments]
    return subprocess.run(command, check=False, input=stdin, capture_output=True)


def test_json_tells_what_the_header_says(tmp_path: Path) -> None:
    file = tmp_path / "x.kc"
    file.write_bytes(HEADER.encode() + bytes(100))

    done = inspect(str(file), "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "format": 1,
        "suite": 1,
        "key": "invoices",
        "version": 7,
        "context": {"note": "a\x1b[31mred\n", "tenant": "42"},
        "wrapped_key": bytes(range(72)).hex(),
        "header_bytes": len(HEADER.encode()),
        "body_bytes": 100,
    }


def test_text_cannot_drive_the_terminal() -> None:
    done = inspect("-", stdin=HEADER.encode())

    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert rb"note=a\x1b[31mred\n" in done.stdout
    assert b"tenant=42" in done.stdout


@pytest.mark.parametrize("length", range(1, len(HEADER.encode())))
def test_every_truncation_is_named(length: int) -> None:
    # In this process: 150 interpreters would take long.
    from click.testing import CliRunner

    from keycustody.cli.envelopes import inspect as command
    from keycustody.errors import TruncatedEnvelope

    result = CliRunner().invoke(command, ["-"], input=HEADER.encode()[:length])

    assert isinstance(result.exception, TruncatedEnvelope)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", b"[TRUNCATED_ENVELOPE]", id="empty"),
        pytest.param(b"KCUS", b"[TRUNCATED_ENVELOPE]", id="cut"),
        pytest.param(b"PK\x03\x04", b"[MALFORMED_ENVELOPE]", id="zip"),
        pytest.param(b"KCUSTODY\x02", b"[MALFORMED_ENVELOPE]", id="next-format"),
        pytest.param(b"KCUSTODY\x01\xff\xff", b"[MALFORMED_ENVELOPE]", id="unknown-suite"),
    ],
)
def test_what_is_no_envelope_is_status_3(data: bytes, code: bytes) -> None:
    done = inspect("-", stdin=data)

    assert done.returncode == 3
    assert done.stdout == b""
    assert code in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_folder_or_nothing_there_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        done = inspect(str(path))
        assert done.returncode == 1
        assert done.stderr.count(b"[FILE_UNUSABLE]\n") == 1
