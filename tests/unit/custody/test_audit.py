import asyncio
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keycustody.custody.audit import Journal, Report, draft, verify
from keycustody.custody.audit.active_file import ActiveFile
from keycustody.custody.audit.files import write_durably
from keycustody.errors import AuditChainBroken, AuditUnavailable
from keycustody.formats.audit import GENESIS, AuditRecord, Chain, decode, encode


def entry(operation: str = "sign") -> AuditRecord:
    return draft(request="0" * 32, principal="p", via="socket", operation=operation, rules="r")


def only_file(report: Report) -> Path:
    (file,) = report.path.glob("audit-*.jsonl")
    return file


async def write(folder: Path, count: int) -> None:
    async with Journal(folder) as journal:
        await asyncio.gather(*(journal.append(entry(f"op{n}")) for n in range(count)))


def test_records_are_chained_in_the_order_of_arrival(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 2000))
    asyncio.run(write(tmp_path, 3))
    report = verify(tmp_path)
    assert report.records == 2003
    chain = Chain()
    lines = only_file(report).read_bytes().splitlines()
    operations = [chain.add(line).operation for line in lines]
    assert operations == [f"op{n}" for n in (*range(2000), *range(3))]
    assert chain.head.hash == report.head


@pytest.fixture(params=[False, True], ids=["quick disk", "slow disk"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which the loop writes, or one that it leaves to the thread."""
    if request.param:
        monkeypatch.setattr("keycustody.custody.audit.journal._QUICK_SECONDS", 0.0)


@pytest.mark.usefixtures("disk")
def test_records_keep_their_order_whoever_waits_for_which(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            for number in range(300):
                written = journal.append(entry(f"op{number}"), under_way=1 + number % 3)
                if number % 2:
                    await written

    asyncio.run(scenario())
    lines = only_file(verify(tmp_path)).read_bytes().splitlines()
    assert [decode(line).operation for line in lines] == [f"op{number}" for number in range(300)]


@pytest.mark.usefixtures("disk")
def test_records_that_are_there_together_share_a_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            await journal.append(entry(), under_way=1)
            tried: list[float] = []
            journal.on_tried = lambda seconds, failed: tried.append(seconds)
            await asyncio.gather(*(journal.append(entry(), under_way=16) for _ in range(16)))
            assert len(tried) <= 2

    asyncio.run(scenario())
    assert verify(tmp_path).records == 17


def test_a_record_waits_for_company_and_not_for_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            batches: list[int] = []
            journal.on_written = lambda: batches.append(journal.head.sequence)
            written = [journal.append(entry(), under_way=8) for _ in range(4)]
            await asyncio.gather(*written)  # half of them
            for _ in range(100):
                await journal.append(
                    entry(), under_way=1
                )  # nobody else comes, and that is soon known
            assert batches == [4, *range(5, 105)]

    asyncio.run(scenario())
    assert verify(tmp_path).records == 104


def test_with_few_callers_nobody_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            batches: list[int] = []
            journal.on_written = lambda: batches.append(journal.head.sequence)
            first = journal.append(entry(), under_way=4)
            await first  # alone, though three others are under way
            await asyncio.gather(*(journal.append(entry(), under_way=4) for _ in range(3)))
            assert batches[0] == 1
            assert batches[-1] == 4

    asyncio.run(scenario())


@pytest.fixture
def by_loop(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each write: was it the loop that wrote?"""
    loop, found = threading.get_ident(), list[bool]()

    def write(descriptor: int, data: bytes, offset: int) -> None:
        found.append(threading.get_ident() == loop)
        write_durably(descriptor, data, offset)

    monkeypatch.setattr("keycustody.custody.audit.active_file.write_durably", write)
    return found


def test_the_loop_writes_only_for_the_only_request(tmp_path: Path, by_loop: list[bool]) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            for under_way in (1, 2, 1, 0, 1):
                await journal.append(entry(), under_way=under_way)
            await journal.append(entry())  # of none: a head, or what was counted
            await asyncio.gather(*(journal.append(entry(), under_way=n) for n in (1, 2)))

    asyncio.run(scenario())
    assert by_loop == [True, False, True, False, True, False, False]


def test_after_a_slow_write_the_loop_writes_none_for_ten_times_as_long(
    tmp_path: Path, by_loop: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow, now = 1 / 64, 4 / 64, [100.0]
    took = {0: slow, 45: slow, 46: slow}

    class Time:
        perf_counter = monotonic = staticmethod(lambda: now[0])

    def append(self: ActiveFile, data: bytes) -> None:
        now[0] += took.get(len(by_loop), quick)
        appended(self, data)

    appended = ActiveFile.append
    monkeypatch.setattr(ActiveFile, "append", append)
    monkeypatch.setattr("keycustody.custody.audit.journal.time", Time)

    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            for number in range(90):
                await journal.append(entry(), under_way=1 + (number == 45))

    asyncio.run(scenario())

    # 40 quick writes are ten slow ones long. The second time, it was the thread that was slow, and
    # then again before that was over.
    assert by_loop == [True] + 40 * [False] + 4 * [True] + 42 * [False] + 3 * [True]


@pytest.mark.usefixtures("disk")
def test_a_full_disk_refuses_whoever_writes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            await journal.append(entry(), under_way=1)
            with full_disk(journal.path, room=100):
                refused = journal.append(entry(), under_way=1)
                with pytest.raises(AuditUnavailable):
                    await refused
            await journal.append(entry(), under_way=1)

    asyncio.run(scenario())
    assert verify(tmp_path).records == 2


def test_an_empty_journal_is_whole(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 0))
    assert (verify(tmp_path).records, verify(tmp_path).head) == (0, GENESIS)


Spoil = Callable[[list[bytes]], list[bytes]]
SPOILS: dict[str, tuple[Spoil, int]] = {
    "an edited line": (lambda lines: [lines[0].replace(b"op0", b"opX"), *lines[1:]], 2),
    "an edited sequence": (lambda lines: [lines[0].replace(b'"seq":1', b'"seq":9'), *lines[1:]], 1),
    "a dropped line": (lambda lines: [lines[0], *lines[2:]], 2),
    "a dropped first line": (lambda lines: lines[1:], 1),
    "two lines swapped": (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
    "a repeated line": (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
    "a member more": (lambda lines: [lines[0][:-1] + b',"x":1}', *lines[1:]], 1),
    "white space": (lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]], 1),
    "an empty line": (lambda lines: [lines[0], b"", *lines[1:]], 2),
    "no JSON": (lambda lines: [b"{", *lines[1:]], 1),
}


@pytest.mark.parametrize("what", SPOILS)
def test_every_edit_is_found_at_its_line(tmp_path: Path, what: str) -> None:
    asyncio.run(write(tmp_path, 4))
    file = only_file(verify(tmp_path))
    spoil, line = SPOILS[what]
    file.write_bytes(b"\n".join(spoil(file.read_bytes().splitlines())) + b"\n")
    with pytest.raises(AuditChainBroken, match=rf"line {line}: "):
        verify(tmp_path)


def test_every_flipped_byte_but_in_the_last_line_is_found(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 3))
    file = only_file(verify(tmp_path))
    good = file.read_bytes()
    last = good[:-1].rfind(b"\n")
    for place in range(last + 1):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(AuditChainBroken):
            verify(tmp_path)


def test_a_line_cut_short_by_a_crash_is_dropped_and_the_chain_goes_on(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 2))
    file = only_file(verify(tmp_path))
    whole = file.read_bytes()
    file.write_bytes(whole + encode(entry())[:40])
    asyncio.run(write(tmp_path, 1))
    assert verify(tmp_path).records == 3
    assert file.read_bytes().startswith(whole)


@contextmanager
def full_disk(file: Path, room: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_and_service_resumes_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            await journal.append(entry())
            with full_disk(journal.path, room=100):
                with pytest.raises(AuditUnavailable):
                    await journal.append(entry())
                with pytest.raises(AuditUnavailable):
                    await journal.append(entry())
            await journal.append(entry())

    asyncio.run(scenario())
    assert verify(tmp_path).records == 2


def test_an_unfinished_line_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 2))
    file = only_file(verify(tmp_path))
    file.write_bytes(file.read_bytes() + b'{"v":1')
    report = verify(tmp_path)
    assert (report.records, report.unfinished) == (2, 6)


Meddle = Callable[[Path], object]
MEDDLING: dict[str, Meddle] = {
    "removed": lambda file: file.unlink(),
    "moved": lambda file: file.rename(file.with_suffix(".1")),
    "replaced": lambda file: (file.rename(file.with_suffix(".1")), file.write_bytes(b"")),
    "cut": lambda file: os.truncate(file, 0),
    "extended": lambda file: file.write_bytes(file.read_bytes() + b"{}\n"),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_a_journal_that_somebody_meddled_with_takes_no_more_records(
    tmp_path: Path, what: str
) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            await journal.append(entry())
            MEDDLING[what](journal.path)
            with pytest.raises(AuditUnavailable):
                await journal.append(entry())

    asyncio.run(scenario())


def test_a_journal_that_was_put_back_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            await journal.append(entry())
            aside = journal.path.rename(tmp_path / "aside")
            with pytest.raises(AuditUnavailable):
                await journal.append(entry())
            aside.rename(journal.path)
            await journal.append(entry())

    asyncio.run(scenario())
    assert verify(tmp_path).records == 2


def test_a_record_that_cannot_be_encoded_harms_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            for _ in range(2):
                with pytest.raises(AuditUnavailable):
                    await journal.append(entry("\ud800"))
                await journal.append(entry())

    asyncio.run(scenario())
    assert verify(tmp_path).records == 2


@pytest.mark.usefixtures("disk")
def test_a_cancelled_callers_record_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Journal(tmp_path) as journal:
            journal.append(entry()).cancel()
            await journal.append(entry())

    asyncio.run(scenario())
    assert verify(tmp_path).records == 2


def test_the_journal_is_private_and_no_link_is_followed(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 1))
    file = only_file(verify(tmp_path))
    assert file.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(AuditUnavailable):
        asyncio.run(write(tmp_path, 1))
