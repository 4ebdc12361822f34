import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keycustody.custody.audit import Journal, records, verify
from keycustody.custody.audit.files import files_of
from keycustody.errors import AuditChainBroken, AuditUnavailable
from tests.unit.custody.killed_journal import record
from tests.unit.custody.test_audit import full_disk


def write(folder: Path, operations: list[str], rotate_bytes: int = 1) -> None:
    async def scenario() -> None:
        async with Journal(folder, rotate_bytes) as journal:
            for operation in operations:
                await journal.append(record(operation))

    asyncio.run(scenario())


def operations(folder: Path, since: datetime | None = None) -> list[str]:
    return [one.operation for one in records(folder, since)]


def test_a_full_file_is_followed_by_one_that_continues_the_chain(tmp_path: Path) -> None:
    write(tmp_path, [f"op{n}" for n in range(20)], rotate_bytes=2000)
    files = files_of(tmp_path)
    assert 2 < len(files) < 20
    assert all(file.path.stat().st_size >= 2000 for file in files[:-1])
    assert verify(tmp_path).records == 20
    assert operations(tmp_path) == [f"op{n}" for n in range(20)]


def test_a_journal_that_is_opened_again_goes_on_in_its_newest_file(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, [f"op{number}"])
    assert [file.first for file in files_of(tmp_path)] == [1, 2, 3]
    write(tmp_path, ["more"], rotate_bytes=10_000)
    assert [file.first for file in files_of(tmp_path)] == [1, 2, 3]
    assert verify(tmp_path).records == 4


def test_killed_at_each_step_of_rotation(tmp_path: Path) -> None:
    program = "tests.unit.custody.killed_journal"
    subprocess.run([sys.executable, "-m", program, tmp_path], check=True, timeout=120)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) > 28
    for folder in folders:
        told = Path(f"{folder}.told").stat().st_size
        assert told <= verify(folder).records <= told + 1
        write(folder, ["after"])
        written = [f"op{n}" for n in range(4)][: verify(folder).records - 1]
        assert operations(folder) == [*written, "after"]


Spoil = Callable[[list[Path]], object]
SPOILS: dict[str, tuple[Spoil, str]] = {
    "a file dropped": (lambda files: files[1].unlink(), "audit-0*3.jsonl: .*missing"),
    "the first file dropped": (
        lambda files: files[0].unlink(),
        "audit-0*2.jsonl, line 1: .*missing",
    ),
    "an empty file between": (
        lambda files: files[1].write_bytes(b""),
        "audit-0*3.jsonl: .*missing",
    ),
    "two files swapped": (
        lambda files: (files[0].rename("a"), files[1].rename(files[0]), Path("a").rename(files[1])),
        "audit-0*1.jsonl, line 1: sequence",
    ),
    "a file twice": (
        lambda files: files[2].write_bytes(files[1].read_bytes()),
        "audit-0*3.jsonl, line 1: sequence",
    ),
    "an edited last line of a file": (
        lambda files: files[0].write_bytes(files[0].read_bytes().replace(b"op0", b"opX")),
        "audit-0*2.jsonl, line 1: record 2 does not continue",
    ),
    "a file cut short": (
        lambda files: files[0].write_bytes(files[0].read_bytes()[:-1]),
        "audit-0*1.jsonl, line 1: ",
    ),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_happens_to_files_is_found(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ["op0", "op1", "op2"])
    spoil, message = SPOILS[what]
    spoil([file.path for file in files_of(tmp_path)])
    with pytest.raises(AuditChainBroken, match=message):
        verify(tmp_path)


def test_a_disk_without_room_for_the_next_file_refuses_and_resumes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path, 1) as journal:
            await journal.append(record("op0"))
            empty = tmp_path / "empty"
            empty.touch()
            with full_disk(empty, room=100):
                with pytest.raises(AuditUnavailable):
                    await journal.append(record("lost"))
            await journal.append(record("op1"))

    asyncio.run(scenario())
    assert operations(tmp_path) == ["op0", "op1"]
    assert verify(tmp_path).records == 2


def test_a_folder_that_takes_no_file_refuses_and_resumes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path, 1) as journal:
            await journal.append(record("op0"))
            there = tmp_path / "audit-00000000000000000002.jsonl"
            there.mkdir()
            refused = journal.append(record("lost"))
            with pytest.raises(AuditUnavailable):
                await refused
            there.rmdir()
            await journal.append(record("op1"))

    asyncio.run(scenario())
    assert operations(tmp_path) == ["op0", "op1"]


def test_a_journal_without_what_the_next_record_continues_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, ["op0"])
    (tmp_path / "audit-00000000000000000007.jsonl").touch()
    with pytest.raises(AuditUnavailable, match="begins with record 7"):
        write(tmp_path, ["op1"])


def test_only_files_that_can_hold_records_since_then_are_opened(tmp_path: Path) -> None:
    write(tmp_path, ["op0", "op1", "op2"])
    times = [datetime.fromisoformat(one.time) for one in records(tmp_path)]
    files_of(tmp_path)[0].path.write_bytes(b"not opened\n")
    assert operations(tmp_path, since=times[1] + timedelta(microseconds=1)) == ["op2"]
    assert operations(tmp_path, since=datetime.now(UTC)) == []
    with pytest.raises(AuditChainBroken, match="line 1"):
        operations(tmp_path)


def test_a_record_under_way_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, ["op0"])
    with files_of(tmp_path)[0].path.open("ab") as stream:
        stream.write(b'{"v":1')
    assert operations(tmp_path) == ["op0"]
