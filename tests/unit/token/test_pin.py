"""Where PINs come from."""

import os
import stat
import traceback
from pathlib import Path

import pytest

from keycustody.errors import FileUnusable, InsecurePermissions, KeycustodyError, PinUnavailable
from keycustody.token.pin import CredentialPin, FilePin, PromptPin, generate, write_new


def _file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "pin"),
    [
        (b"1234", b"1234"),
        (b"1234\n", b"1234"),
        (b"1234\r\n", b"1234"),
        (b" 12 34 \n", b" 12 34 "),
        ("pin-ü\n".encode(), "pin-ü".encode()),
        (b"x" * 4096, b"x" * 4096),
    ],
)
def test_a_file_holds_the_pin_and_one_newline(tmp_path: Path, content: bytes, pin: bytes) -> None:
    assert FilePin(_file(tmp_path, content))() == pin


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\r\n",
        b"canary\n\n",
        b"canary\n5678",
        b"canary\x00",
        b"canary\xff",
        b"canary" * 1000,
    ],
)
def test_a_file_that_is_not_a_pin_is_refused_unquoted(tmp_path: Path, content: bytes) -> None:
    source = FilePin(_file(tmp_path, content))
    with pytest.raises(PinUnavailable) as caught:
        source()
    shown = "".join(traceback.format_exception(caught.value))
    assert "canary" not in shown


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o610, 0o601, 0o644, 0o777])
def test_a_file_open_to_others_is_refused_with_what_to_run(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, b"1234", mode)
    with pytest.raises(InsecurePermissions, match=f"chmod 600 {path}"):
        FilePin(path)()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_for_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert FilePin(_file(tmp_path, b"1234", mode))() == b"1234"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, b"1234")
    os.chown(path, 12345, -1)
    with pytest.raises(InsecurePermissions, match="belongs to another user"):
        FilePin(path)()


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "dangling"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pin"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PinUnavailable):
        FilePin(path)()


def test_a_corrected_file_is_seen(tmp_path: Path) -> None:
    source = FilePin(_file(tmp_path, b"1234"))
    assert source() == b"1234"
    source.path.write_bytes(b"5678")
    assert source() == b"5678"


def test_a_credential_is_read_from_systemds_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    # systemd shows an access mask for the group on a file that only the service can read.
    _file(tmp_path, b"1234\n", 0o440)
    assert CredentialPin("pin")() == b"1234"


@pytest.mark.parametrize("name", ["", ".", "..", "../pin", "/etc/passwd", "missing"])
def test_a_credential_is_a_name_in_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "credentials").mkdir()
    _file(tmp_path, b"1234")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    with pytest.raises(PinUnavailable):
        CredentialPin(name)()


def test_without_systemd_there_is_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(PinUnavailable, match="LoadCredential="):
        CredentialPin("pin")()


def test_a_person_is_asked_once_and_never_quoted() -> None:
    answers = iter(["canary"])
    source = PromptPin(lambda: next(answers))
    assert (source(), source()) == (b"canary", b"canary")
    assert "canary" not in repr(source)


@pytest.mark.parametrize("answer", [None, ""])
def test_without_a_terminal_or_an_answer_there_is_no_pin(answer: str | None) -> None:
    source = PromptPin(lambda: answer)
    with pytest.raises(PinUnavailable):
        source()


def test_generated_pins_are_long_distinct_and_typable() -> None:
    pins = {generate() for _ in range(200)}
    assert len(pins) == 200
    assert all(4 <= len(pin) <= 32 and pin.isalnum() for pin in pins)


def test_a_new_pin_file_is_for_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    path, pin = tmp_path / "pin", generate()
    before = os.umask(0)
    try:
        write_new(path, pin)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FilePin(path)() == pin


@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_nothing_is_written_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pin"
    if kind == "file":
        path.write_bytes(b"the old one")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileUnusable):
        write_new(path, b"the new one")
    assert kind == "dangling" or path.read_bytes() == b"the old one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeycustodyError) as caught:
        write_new(tmp_path / "none" / "pin", b"canary")
    assert "canary" not in caught.value.message
