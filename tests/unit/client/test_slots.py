"""Slots in place: nothing else of a file changes, whatever happens, and what was torn is mended."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody import errors
from keycustody.client import slots
from keycustody.client.slots import Change, Seen
from keycustody.errors import KeycustodyError
from keycustody.formats import envelope, rewrap_record
from keycustody.formats.envelope import SLOT_BYTES, Header
from keycustody.formats.rewrap_record import Entry
from tests.strace import killed_at, needs_strace

BODY = bytes(range(256)) * 40
#: Contexts that put the slot at the start, over a sector's end, and over a page's end.
CONTEXTS = {
    "near the start": {},
    "over a sector's end": {"k": "v" * 430},
    "over a page's end": {f"{n}": "v" * 1000 for n in range(4)} | {"z": "v" * 1},
}


def old_header(context: dict[str, str] | None = None) -> Header:
    return Header.of("invoices", context or {}, 1, b"o" * 72)


def made(path: Path, header: Header) -> Seen:
    path.write_bytes(header.encode() + BODY)
    seen = slots.look(str(path))
    assert seen is not None
    return seen


def change(seen: Seen) -> Change:
    return Change(seen, seen.header.with_slot(2, b"n" * 72))


def records(folder: Path) -> list[Path]:
    return sorted(folder.glob(".keycustody-*"))


def settled(folder: Path) -> list[tuple[str, KeycustodyError | None]]:
    return list(slots.settle(str(folder)))


@pytest.mark.parametrize("case", CONTEXTS)
def test_78_bytes_and_no_other(tmp_path: Path, case: str) -> None:
    path = tmp_path / "file"
    seen = made(path, old_header(CONTEXTS[case]))
    before, status = path.read_bytes(), path.stat()
    assert slots.replace(str(tmp_path), [change(seen)]) == [True]
    after, at = path.read_bytes(), len(seen.header.fixed)
    assert after[at : at + SLOT_BYTES] == change(seen).new.slot
    assert after[:at] + after[at + SLOT_BYTES :] == before[:at] + before[at + SLOT_BYTES :]
    assert path.stat().st_ino == status.st_ino
    assert records(tmp_path) == []


def test_the_cases_are_where_they_say() -> None:
    starts = {case: len(old_header(context).fixed) for case, context in CONTEXTS.items()}
    assert starts["near the start"] < 512 - SLOT_BYTES
    for size, case in ((512, "over a sector's end"), (4096, "over a page's end")):
        first, last = starts[case] // size, (starts[case] + SLOT_BYTES - 1) // size
        assert first != last, (case, starts[case])


def test_mode_owner_links_and_attributes_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made(path, old_header())
    path.chmod(0o640)
    (tmp_path / "link").hardlink_to(path)
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(path, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    seen = slots.look(str(path))
    assert seen is not None
    before, attributes = path.stat(), os.listxattr(path)
    assert slots.replace(str(tmp_path), [change(seen)]) == [True]
    after = path.stat()
    for name in ("st_ino", "st_mode", "st_uid", "st_gid", "st_nlink", "st_size"):
        assert getattr(before, name) == getattr(after, name)
    assert os.listxattr(path) == attributes
    # Backups that go by it take the file again.
    assert after.st_mtime_ns > before.st_mtime_ns
    assert (tmp_path / "link").read_bytes() == path.read_bytes()


def test_a_file_with_two_names_is_moved_once(tmp_path: Path) -> None:
    made(tmp_path / "file", old_header())
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    seen = [slots.look(str(tmp_path / name)) for name in ("file", "link")]
    assert slots.replace(str(tmp_path), [change(one) for one in seen if one]) == [True, False]


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _edit_header(path: Path) -> None:
    status, data = path.stat(), bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def _to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGED: dict[str, Callable[[Path], None]] = {
    "longer": _append,
    "touched": os.utime,
    "header edited, time put back": _edit_header,
    "another inode": _replace,
    "gone": Path.unlink,
    "a link now": _to_link,
    "a FIFO now": _to_fifo,
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_file_that_changed_is_not_written(tmp_path: Path, case: str) -> None:
    path = tmp_path / "file"
    seen, other = made(path, old_header()), made(tmp_path / "other", old_header())
    CHANGED[case](path)
    before = path.read_bytes() if path.is_file() else b""
    refused, moved = slots.replace(str(tmp_path), [change(seen), change(other)])
    assert isinstance(refused, errors.FileUnusable)
    assert moved is True
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert records(tmp_path) == []


# -- killed ----------------------------------------------------------------------------------------

#: Each system call by which something changes, and how often it comes for two files.
STEPS = [
    ("flock", 1),
    ("pwrite64", 1),
    ("pwrite64", 2),
    ("pwrite64", 3),
    ("fsync", 1),
    ("fsync", 2),
    ("fdatasync", 1),
    ("fdatasync", 2),
    ("unlinkat", 1),
    ("exit_group", 1),
]


@needs_strace
@pytest.mark.parametrize(("call", "number"), STEPS)
def test_killed_at_any_step(tmp_path: Path, call: str, number: int) -> None:
    old = made(tmp_path / "a", old_header()).header
    made(tmp_path / "b", old_header())
    new = old.with_slot(2, b"n" * 72)
    done = subprocess.run(
        [
            *killed_at(call, number),
            *(sys.executable, Path(__file__).with_name("kill_replace.py"), tmp_path),
        ],
        check=False,
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    for name in "ab":
        assert (tmp_path / name).read_bytes() in (old.encode() + BODY, new.encode() + BODY)
    assert all(error is None for _, error in settled(tmp_path))
    assert records(tmp_path) == []


# -- what a killed run left ------------------------------------------------------------------------


def entry(header: Header, name: bytes = b"file") -> Entry:
    new = header.with_slot(2, b"n" * 72)
    digest = hashlib.sha256(header.fixed).digest()
    return Entry(name, len(header.fixed), digest, header.slot, new.slot)


def leave(folder: Path, *entries: Entry) -> Path:
    path = folder / ".keycustody-rewrap-0123456789abcdef"
    path.write_bytes(rewrap_record.encode(entries))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 40, 77, 78])
@pytest.mark.parametrize("first", ["new", "old"], ids=["front first", "back first"])
def test_a_torn_slot_is_mended(tmp_path: Path, cut: int, first: str) -> None:
    header = old_header()
    path, one = tmp_path / "file", entry(header)
    front, back = (one.new, one.old) if first == "new" else (one.old, one.new)
    slot = front[:cut] + back[cut:]
    path.write_bytes(header.fixed + slot + BODY)
    leave(tmp_path, one)
    torn = slot not in (one.old, one.new)
    assert settled(tmp_path) == ([(str(path), None)] if torn else [])
    assert path.read_bytes() == header.fixed + (one.new if torn else slot) + BODY
    assert records(tmp_path) == []


def test_a_record_cut_short_says_that_nothing_was_written(tmp_path: Path) -> None:
    made(tmp_path / "file", old_header())
    whole = rewrap_record.encode([entry(old_header())])
    for size in (0, 8, 11, 100, len(whole) - 1):
        (tmp_path / ".keycustody-rewrap-0").write_bytes(whole[:size])
        assert settled(tmp_path) == []
        assert records(tmp_path) == []
    assert (tmp_path / "file").read_bytes() == old_header().encode() + BODY


def test_the_record_of_a_run_at_work_is_left_alone(tmp_path: Path) -> None:
    record = leave(tmp_path, entry(old_header()))
    with record.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert settled(tmp_path) == []
    assert record.exists()
    assert settled(tmp_path) == []
    assert not record.exists()


def _other_slot(header: Header) -> bytes:
    return header.with_slot(3, b"x" * 72).slot


#: What may be in the file's place when a record is found, and whether the record is kept for it.
FOUND: dict[str, tuple[Callable[[Header], bytes], bool]] = {
    "another file": (lambda header: b"something else" * 20, False),
    "another context": (lambda header: old_header({"a": "b"}).encode() + BODY, False),
    "moved on since": (lambda header: header.fixed + _other_slot(header) + BODY, False),
    "a slot of zeros": (lambda header: header.fixed + bytes(SLOT_BYTES) + BODY, True),
    "cut inside the slot": (lambda header: header.encode()[:-3], True),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_neither_slot_is_not_written(tmp_path: Path, case: str) -> None:
    header, path = old_header(), tmp_path / "file"
    content, kept = FOUND[case][0](header), FOUND[case][1]
    path.write_bytes(content)
    record = leave(tmp_path, entry(header))
    assert [type(error) for _, error in settled(tmp_path)] == [errors.FileUnusable] * kept
    assert record.exists() is kept
    assert path.read_bytes() == content


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    header, one = old_header(), entry(old_header())
    torn = header.fixed + one.new[:40] + one.old[40:] + BODY
    (tmp_path / "victim").write_bytes(torn)
    (tmp_path / "file").symlink_to("victim")
    leave(tmp_path, one)
    assert [type(error) for _, error in settled(tmp_path)] == [errors.FileUnusable]
    assert (tmp_path / "victim").read_bytes() == torn


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_another_users_record_is_not_believed(tmp_path: Path) -> None:
    header, one = old_header(), entry(old_header())
    torn = header.fixed + one.new[:40] + one.old[40:] + BODY
    (tmp_path / "file").write_bytes(torn)
    os.chown(leave(tmp_path, one), 1234, 1234)
    assert [type(error) for _, error in settled(tmp_path)] == [errors.FileUnusable]
    assert (tmp_path / "file").read_bytes() == torn


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"../file", b"a\0b", b"n" * 256])
def test_a_record_names_files_of_its_own_folder(name: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        entry(old_header(), name)


@given(st.binary(max_size=400), st.integers(1, 64), st.integers(0, 500))
def test_a_record_has_one_encoding(noise: bytes, count: int, at: int) -> None:
    entries = [entry(old_header(), f"file {number}".encode()) for number in range(count)]
    data = rewrap_record.encode(entries)
    assert rewrap_record.decode(data) == entries
    assert rewrap_record.decode(noise) is None
    edited = data[:at] + bytes([data[at % len(data)] ^ 1]) + data[at + 1 :]
    assert rewrap_record.decode(edited) is None
    assert rewrap_record.decode(data + b"\0") is None


def test_what_is_no_envelope_and_what_is_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"KCUST", b"text", bytes(9000)):
        path.write_bytes(content)
        assert slots.look(str(path)) is None
    for content in (b"KCUSTODY", old_header().encode()[:-1], b"KCUSTODY\2" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(errors.MalformedEnvelope):
            slots.look(str(path))
    assert envelope.MAGIC == b"KCUSTODY"
