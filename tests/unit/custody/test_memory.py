"""What is remembered survives, whole or not at all."""

import asyncio
from pathlib import Path

import pytest

from keycustody.custody.keys.memory import Memory, MemoryFile, Seen
from keycustody.errors import FileUnusable
from keycustody.formats.state import State

REVOKED = Seen("2026-01-01T00:00:00Z", "ab" * 16, State.REVOKED, "2026-02-01T00:00:00Z")


def update(file: MemoryFile) -> None:
    asyncio.run(file.update(lambda memory: memory.noting("release.v1", REVOKED)))


def test_it_is_there_after_a_restart_and_only_ours_to_read(tmp_path: Path) -> None:
    update(MemoryFile(tmp_path))
    assert MemoryFile(tmp_path).memory.versions == {"release.v1": REVOKED}
    assert (tmp_path / "seen.json").stat().st_mode & 0o777 == 0o600


def test_it_can_be_forgotten(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path)
    update(file)
    file.forget()
    assert file.memory == MemoryFile(tmp_path).memory == Memory()


@pytest.mark.parametrize("content", [b"", b"{", b'{"v":2}', b'{"v":1,"more":1}', b"\xff"])
def test_a_file_that_is_not_ours_stops_the_agent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "seen.json").write_bytes(content)
    with pytest.raises(FileUnusable):
        MemoryFile(tmp_path)


def test_what_cannot_be_written_counts_all_the_same_and_is_written_later(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path)
    in_the_way = tmp_path / "seen.new"
    in_the_way.mkdir()
    with pytest.raises(FileUnusable):
        update(file)
    assert file.memory.versions
    in_the_way.rmdir()
    asyncio.run(file.update(lambda memory: memory))
    assert MemoryFile(tmp_path).memory == file.memory
