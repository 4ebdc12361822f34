"""Envelope files: every size around a boundary, and every way that reading or writing can fail.

No agent: the session key is handed in.
"""

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycustody import errors
from keycustody.client import envelope_files, files, pipeline
from keycustody.client.delivery import SecretKey
from keycustody.client.envelopes import ANY, Expectation, Opener, Sealer
from keycustody.formats.envelope import Header

KEY = SecretKey(bytes(range(32)))
HEADER = Header.of("invoices", {"tenant": "42"}, 1, bytes(72))
ANYTHING = Expectation.of(ANY, ANY)
CHUNK, BLOCK = 16 * 1024, pipeline.BLOCK_BYTES


def encrypt(source: Any, target: Any, **options: Any) -> None:
    charge = options.pop("charge", lambda size: None)
    envelope_files.encrypt(source, target, lambda size: Sealer(HEADER, KEY), charge, **options)


def decrypt(source: Any, target: Any, **options: Any) -> None:
    envelope_files.decrypt(
        source,
        target,
        options.pop("expected", ANYTHING),
        lambda header, size: Opener(header, KEY),
        lambda header, size: None,
        **options,
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(params=["anonymous", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a temporary file: O_TMPFILE, and a name where that is not to be had."""
    if request.param == "named":
        monkeypatch.setattr(files, "_anonymous_files", lambda: False)
    return str(request.param)


SIZES = sorted(
    {
        size
        for edge in (0, CHUNK, 2 * CHUNK, BLOCK, 2 * BLOCK, pipeline.DEPTH * BLOCK, 8 * BLOCK)
        for size in (edge - 1, edge, edge + 1)
        if size >= 0
    }
)


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    plain, sealed, back = tmp_path / "plain", tmp_path / "sealed", tmp_path / "back"
    plain.write_bytes(data)
    encrypt(plain, sealed, associated_data=b"aad")
    assert sealed.stat().st_size == len(HEADER.encode()) + 56 + size + 16 * (size // CHUNK + 1)
    decrypt(sealed, back, associated_data=b"aad")
    assert back.read_bytes() == data
    # A message and a file are one format.
    header, body = HEADER.encode(), sealed.read_bytes()[len(HEADER.encode()) :]
    assert sealed.read_bytes().startswith(header)
    assert Opener(HEADER, KEY).open(body, b"aad") == data
    assert names(tmp_path) == {"plain", "sealed", "back"}


class Dribble(io.RawIOBase):
    """A pipe that gives what it likes."""

    def __init__(self, data: bytes, steps: list[int]) -> None:
        self.data, self.steps, self.turn = data, steps, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        step = min(self.steps[self.turn % len(self.steps)], len(buffer), len(self.data))
        self.turn += 1
        buffer[:step] = self.data[:step]
        self.data = self.data[step:]
        return step


@settings(max_examples=60, deadline=None)
@given(
    data=st.integers(0, 3 * CHUNK).map(bytes),
    steps=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
)
def test_pipes_of_any_rhythm(data: bytes, steps: list[int]) -> None:
    sealed, back = io.BytesIO(), io.BytesIO()
    encrypt(Dribble(data, steps), sealed)
    decrypt(Dribble(sealed.getvalue(), steps), back)
    assert back.getvalue() == data


class OnlyReadAndWrite:
    def __init__(self, data: bytes = b"") -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.inner.read(min(size, 1000))

    def write(self, data: Any) -> int:
        return self.inner.write(data[:777])


def test_the_least_of_file_objects() -> None:
    sealed, back = OnlyReadAndWrite(), OnlyReadAndWrite()
    encrypt(OnlyReadAndWrite(b"x" * 5000), sealed)
    decrypt(OnlyReadAndWrite(sealed.inner.getvalue()), back)
    assert back.inner.getvalue() == b"x" * 5000


def test_text_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="binary"):
        encrypt(io.StringIO("text"), io.BytesIO())
    with pytest.raises(errors.InvalidRequest, match="binary"):
        encrypt(io.BytesIO(), io.StringIO())


def test_bytes_of_a_pipe_are_counted_afterwards() -> None:
    counted: list[int] = []
    encrypt(io.BytesIO(b"x" * 70_000), io.BytesIO(), charge=counted.append)
    assert counted == [70_000]


def test_progress(tmp_path: Path) -> None:
    size = 5 * BLOCK + 7
    (tmp_path / "plain").write_bytes(bytes(size))
    seen: list[tuple[int, int | None]] = []
    encrypt(tmp_path / "plain", tmp_path / "sealed", progress=lambda *step: seen.append(step))
    assert seen == sorted(seen, key=lambda step: step[0])
    assert seen[-1] == (size, size)
    seen.clear()
    decrypt(tmp_path / "sealed", tmp_path / "back", progress=lambda *step: seen.append(step))
    total = (tmp_path / "sealed").stat().st_size
    assert seen[-1] == (total, total)
    seen.clear()
    encrypt(io.BytesIO(b"xyz"), io.BytesIO(), progress=lambda *step: seen.append(step))
    assert seen.pop() == (3, None)


# -- where it goes ---------------------------------------------------------------------------------


def test_modes(tmp_path: Path, way: str) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    before = os.umask(0o027)
    try:
        encrypt(tmp_path / "plain", tmp_path / "sealed")
        decrypt(tmp_path / "sealed", tmp_path / "back")
    finally:
        os.umask(before)
    assert (tmp_path / "sealed").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_source_and_target_may_be_one_file(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 * BLOCK))
    encrypt(path, path)
    assert path.read_bytes().startswith(b"KCUSTODY")
    decrypt(path, path)
    assert path.read_bytes() == b"x" * (2 * BLOCK)
    assert names(tmp_path) == {"file"}


def test_symbolic_links_are_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/real")
    encrypt(tmp_path / "plain", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_bytes().startswith(b"KCUSTODY")


def test_the_longest_name(tmp_path: Path, way: str) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    encrypt(tmp_path / "plain", tmp_path / ("n" * 255))
    assert names(tmp_path) == {"plain", "n" * 255}


def test_a_name_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").write_bytes(b"x")
    encrypt("plain", "sealed")
    assert names(tmp_path) == {"plain", "sealed"}


def test_a_fifo_is_written_as_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"x" * (2 * BLOCK))
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    encrypt(tmp_path / "plain", tmp_path / "fifo")
    reader.join()
    back = io.BytesIO()
    decrypt(io.BytesIO(got[0]), back)
    assert back.getvalue() == b"x" * (2 * BLOCK)
    assert (tmp_path / "fifo").is_fifo()


# -- what fails ------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "plain").write_bytes(b"x" * (3 * BLOCK + 5))
    encrypt(tmp_path / "plain", tmp_path / "sealed")
    return tmp_path / "sealed"


def edit_last(data: bytearray) -> None:
    data[-1] ^= 1


def edit_middle(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def swap_chunks(data: bytearray) -> None:
    start, step = len(HEADER.encode()) + 56, CHUNK + 16
    first, second = slice(start, start + step), slice(start + step, start + 2 * step)
    data[first], data[second] = data[second], data[first]


def cut(data: bytearray) -> None:
    del data[-1:]


def cut_chunks(data: bytearray) -> None:
    del data[len(HEADER.encode()) + 56 + 2 * (CHUNK + 16) :]


def extend(data: bytearray) -> None:
    data += b"\0"


@pytest.mark.parametrize("edit", [edit_last, edit_middle, swap_chunks, cut, cut_chunks, extend])
def test_an_edited_file_leaves_nothing(
    sealed: Path, way: str, edit: Callable[[bytearray], None]
) -> None:
    data = bytearray(sealed.read_bytes())
    edit(data)
    sealed.write_bytes(data)
    target = sealed.parent / "back"
    with pytest.raises(errors.DecryptionFailed):
        decrypt(sealed, target)
    target.write_bytes(b"precious")
    with pytest.raises(errors.DecryptionFailed):
        decrypt(sealed, target)
    assert target.read_bytes() == b"precious"
    assert names(sealed.parent) == {"plain", "sealed", "back"}


@pytest.mark.parametrize("length", [0, 7, 8, 30, len(HEADER.encode()) - 1])
def test_a_file_that_ends_in_its_header(sealed: Path, length: int) -> None:
    sealed.write_bytes(sealed.read_bytes()[:length])
    with pytest.raises(errors.TruncatedEnvelope):
        decrypt(sealed, sealed.parent / "back")
    assert names(sealed.parent) == {"plain", "sealed"}


def test_expectations_come_before_anything_else(sealed: Path) -> None:
    for expected, error in (
        (Expectation.of("receipts", ANY), errors.UnexpectedKey),
        (Expectation.of("invoices", {}), errors.UnexpectedContext),
    ):
        with pytest.raises(error):
            decrypt(sealed, sealed.parent / "back", expected=expected)
    decrypt(sealed, sealed.parent / "back", expected=Expectation.of("invoices", {"tenant": "42"}))


def test_wrong_associated_data(sealed: Path) -> None:
    with pytest.raises(errors.DecryptionFailed):
        decrypt(sealed, sealed.parent / "back", associated_data=b"other")
    assert names(sealed.parent) == {"plain", "sealed"}


def test_a_pipe_may_have_got_an_authenticated_prefix(sealed: Path) -> None:
    data = bytearray(sealed.read_bytes())
    edit_last(data)
    sealed.write_bytes(data)
    back = io.BytesIO()
    with pytest.raises(errors.DecryptionFailed):
        decrypt(sealed, back)
    assert back.getvalue() != b"x" * (3 * BLOCK + 5)
    assert (b"x" * (3 * BLOCK + 5)).startswith(back.getvalue())


def unusable(source: Any, target: Any, sentence: str) -> None:
    with pytest.raises(errors.FileUnusable, match=sentence) as caught:
        encrypt(source, target)
    assert "\n" not in caught.value.message


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    unusable(tmp_path / "absent", tmp_path / "out", r"Cannot read .*/absent: No such file")
    unusable(tmp_path, tmp_path / "out", "Is a directory")
    unusable(plain, tmp_path, r"Cannot write .*: Is a directory")
    unusable(plain, f"{tmp_path}/out/", "Is a directory")
    unusable(plain, tmp_path / "no" / "out", "No such file")
    unusable(plain, plain / "out", "Not a directory")
    unusable(plain, tmp_path / ("n" * 256), "File name too long")
    unusable("a\0b", tmp_path / "out", "null byte")
    unusable(plain, "a\0b", "null byte")
    assert names(tmp_path) == {"plain"}


def test_a_device_that_is_full(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(3 * BLOCK))
    unusable(tmp_path / "plain", "/dev/full", "Cannot write /dev/full: No space left on device")
    with io.FileIO("/dev/full", "w") as full:
        unusable(tmp_path / "plain", full, "No space left on device")


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops to another user")
def test_permissions(way: str) -> None:
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        folder.chmod(0o755)
        (folder / "secret").write_bytes(b"x")
        (folder / "secret").chmod(0o600)
        (folder / "plain").write_bytes(b"x")
        with another_user():
            unusable(folder / "secret", folder / "out", "Cannot read .*: Permission denied")
            unusable(folder / "plain", folder / "out", "Cannot write .*: Permission denied")
            unusable(folder / "plain", folder / "secret", "Cannot write .*: Permission denied")
        assert names(folder) == {"secret", "plain"}
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.parametrize("limit", [0, 1, 100, 4096, BLOCK, BLOCK + 5000, 3 * BLOCK])
def test_no_room_for_the_output(tmp_path: Path, way: str, limit: int) -> None:
    """RLIMIT_FSIZE makes the write at that byte fail, short writes included."""
    (tmp_path / "plain").write_bytes(bytes(3 * BLOCK))
    (tmp_path / "out").write_bytes(b"precious")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(errors.FileUnusable, match="File too large"):
            encrypt(tmp_path / "plain", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "out").read_bytes() == b"precious"
    assert names(tmp_path) == {"plain", "out"}


def test_a_folder_that_vanishes(tmp_path: Path, way: str) -> None:
    (tmp_path / "plain").write_bytes(bytes(4 * BLOCK))
    folder = tmp_path / "folder"
    folder.mkdir()

    def vanish(done: int, total: int | None) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(errors.FileUnusable, match=r"Cannot write .*/folder/out: "):
        encrypt(tmp_path / "plain", folder / "out", progress=vanish)
    assert names(tmp_path) == {"plain"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_whatever_interrupts_leaves_nothing(
    tmp_path: Path, way: str, error: type[BaseException]
) -> None:
    (tmp_path / "plain").write_bytes(bytes(8 * BLOCK))
    before = threading.active_count()

    def interrupt(done: int, total: int | None) -> None:
        raise error

    with pytest.raises(error):
        encrypt(tmp_path / "plain", tmp_path / "out", progress=interrupt)
    assert names(tmp_path) == {"plain"}
    assert threading.active_count() == before


class Failing:
    """Reads or writes until it does not."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def _step(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise OSError(5, "Input/output error")

    def readinto(self, buffer: Any) -> int:
        self._step()
        return len(buffer)

    read = readinto

    def write(self, data: Any) -> int:
        self._step()
        return len(data)


@pytest.mark.parametrize("calls", range(9))
def test_any_read_and_any_write_may_fail(tmp_path: Path, way: str, calls: int) -> None:
    before = threading.active_count()
    unusable(Failing(calls), tmp_path / "out", "Cannot read the given stream: Input/output error")
    (tmp_path / "plain").write_bytes(bytes(20 * BLOCK))
    unusable(tmp_path / "plain", Failing(calls), "Cannot write the given stream: Input/output")
    assert names(tmp_path) == {"plain"}
    assert threading.active_count() == before


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(4 * BLOCK))
    read_end, write_end = os.pipe()
    os.close(read_end)
    with io.FileIO(write_end, "w") as pipe:
        unusable(tmp_path / "plain", pipe, "Broken pipe")


KILLED = """
import sys, time
from tests.unit.client.test_files import encrypt
def stop(done, total):
    print("under way", flush=True)
    while True:  # a signal that comes just before one long sleep would wait for its end
        time.sleep(0.1)
encrypt(sys.argv[1], sys.argv[2], progress=stop)
"""


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_even_a_killed_process_leaves_nothing(tmp_path: Path, signal_: signal.Signals) -> None:
    (tmp_path / "plain").write_bytes(bytes(8 * BLOCK))
    command: list[str | Path] = [sys.executable, "-c", KILLED, tmp_path / "plain", tmp_path / "out"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "under way\n"
        child.send_signal(signal_)
        # A stage that the disk holds up is waited for, five seconds each; only then does it end.
        assert child.wait(60) != 0
    assert names(tmp_path) == {"plain"}


MEASURED = """
import resource, sys
from tests.unit.client.test_files import encrypt, decrypt
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
folder = sys.argv[1]
encrypt(folder + "/small", folder + "/sealed")
before = peak()
encrypt(folder + "/large", folder + "/sealed")
decrypt(folder + "/sealed", folder + "/back")
print(peak() - before)
"""


def test_memory_is_constant(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(64 * BLOCK)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 16
