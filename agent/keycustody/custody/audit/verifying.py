"""Checks a journal: every line, every file, every signed head, and what was to be found in it.

It streams. What it cannot know, the report says: an edit of the records after the last signed head
is seen only if it does not fit itself, and without a head that was kept elsewhere, a journal that
was cut back to an older head looks whole.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keycustody.custody.audit.files import (
    HEAD_NAME,
    JournalFile,
    files_of,
    lines_of,
    promised,
)
from keycustody.custody.clock import read_stamp
from keycustody.errors import AuditChainBroken, AuditTruncated, AuditUnavailable, InvalidSignature
from keycustody.formats import audit as fmt
from keycustody.formats import audit_head, signed_note
from keycustody.formats.audit import GENESIS, AuditRecord, Chain, Head
from keycustody.formats.signed_note import VerifierKey

#: Lines whose hash is remembered until a head names it: what can be written while one is signed.
_REMEMBERED = 2**18


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` read, and what it does not know."""

    path: Path
    files: int
    #: Sequence number of the first record, 0 if there is none.
    first: int
    records: int
    head: str
    #: Bytes after the last line end: a record under way, or cut short; never acknowledged.
    unfinished: int
    heads: int
    #: The last record that a signed head covers; 0 if none does.
    covered: int
    unknown: tuple[str, ...]


def verify(
    path: Path,
    *,
    keys: Sequence[VerifierKey] = (),
    expected: str | None = None,
    partial: bool = False,
) -> Report:
    """Check a journal (a folder that holds its files, or one file).

    `keys` verify its heads; `expected` is a signed head that it must contain; `partial` says that
    it need not begin with record 1, because earlier files are kept elsewhere.

    Raises `AuditChainBroken` naming file, line and what does not fit, `AuditTruncated` if an
    expected head is not in it, `AuditUnavailable` if a file cannot be read.
    """
    wanted = [_given(expected, keys)] if expected is not None else []
    if path.is_dir():
        wanted += _kept(path, keys)
    files = files_of(path) if path.is_dir() else [_file(path)]
    check = _Check(_start(files, partial), keys, wanted)
    unfinished = 0
    for file in files:
        check.begin(file)
        for number, line in enumerate(lines_of(file.path), start=1):
            if not line.endswith(b"\n") and len(line) <= fmt.MAX_LINE_BYTES:
                if file is not files[-1]:
                    raise AuditChainBroken(f"{file.path}, line {number}: the file was cut.")
                unfinished = len(line)
                break
            try:
                check.line(line.removesuffix(b"\n"))
            except AuditTruncated:
                raise
            except (AuditChainBroken, InvalidSignature) as error:
                text = error.message.removesuffix(".")
                raise AuditChainBroken(f"{file.path}, line {number}: {text}.") from error
    return check.report(path, len(files), unfinished, bool(expected))


class _Check:
    """The state of one verification."""

    def __init__(
        self, start: Head, keys: Sequence[VerifierKey], wanted: Iterable[tuple[str, Head]]
    ) -> None:
        self._chain = Chain(start)
        self._start = start
        self._keys = keys
        self._wanted = sorted(wanted, key=lambda one: one[1].sequence)
        #: Hashes of the lines after the last covered one, or of the last `_REMEMBERED`.
        self._hashes: deque[str] = deque(maxlen=_REMEMBERED)
        self._time = 0.0
        self._heads = 0
        self._covered = 0
        self._ends_with_head = False
        self._settle(start)

    def begin(self, file: JournalFile) -> None:
        """Begin a file."""
        before = self._chain.head.sequence
        if file.first != before + 1:
            raise AuditChainBroken(
                f"{file.path}: its name promises record {file.first}, and the record before it is "
                f"{before}: a file is missing, or was cut."
            )

    def line(self, line: bytes) -> None:
        """Check one line."""
        record = self._chain.add(line)
        now = read_stamp(record.time)
        if now < self._time:
            raise AuditChainBroken(
                f"record {record.seq} is older than the record before it: times never go back"
            )
        self._time = now
        self._hashes.append(self._chain.head.hash)
        self._ends_with_head = audit_head.is_head(record)
        if self._ends_with_head:
            self._head(record)
        self._settle(self._chain.head)

    def report(self, path: Path, files: int, unfinished: int, expected: bool) -> Report:
        """End: what was not found is missing."""
        head = self._chain.head
        for what, wanted in self._wanted:
            raise AuditTruncated(
                f"{what} is of record {wanted.sequence}, and the journal ends with "
                f"{head.sequence}: records were removed, or it is another journal."
            )
        first = self._start.sequence + 1 if head.sequence > self._start.sequence else 0
        unknown = tuple(self._unknown(head, expected))
        count = head.sequence - self._start.sequence
        return Report(
            path, files, first, count, head.hash, unfinished, self._heads, self._covered, unknown
        )

    def _head(self, record: AuditRecord) -> None:
        """Check a signed head: its signature, and that it names an earlier line as it is."""
        note = record.detail
        text = signed_note.verified(note, self._keys) if self._keys else signed_note.text_of(note)
        head, _ = audit_head.decode(text)
        if not self._covered < head.sequence < record.seq:
            raise AuditChainBroken(
                f"the signed head is of record {head.sequence}, which is not between the last one "
                "and this: it is another journal's, or another place's"
            )
        back = record.seq - head.sequence + 1
        if head.sequence == self._start.sequence:
            fits = self._start.hash in ("", head.hash)
        elif head.sequence < self._start.sequence:
            fits = True  # not here; the report says where this journal begins
        else:
            fits = back <= len(self._hashes) and self._hashes[-back] == head.hash
        if not fits:
            raise AuditChainBroken(
                f"the signed head is not of this journal's record {head.sequence}: that record was "
                "changed, or the head is another journal's"
            )
        self._heads += 1
        self._covered = head.sequence

    def _settle(self, reached: Head) -> None:
        while self._wanted and self._wanted[0][1].sequence <= reached.sequence:
            what, head = self._wanted.pop(0)
            if head.sequence < reached.sequence or not reached.hash:
                raise AuditTruncated(
                    f"{what} is of record {head.sequence}, which is before the first one here."
                )
            if head.hash != reached.hash:
                raise AuditTruncated(
                    f"{what} is not of this journal's record {head.sequence}: that record was "
                    "changed, or it is another journal."
                )

    def _unknown(self, head: Head, expected: bool) -> Iterator[str]:
        if self._start.sequence:
            yield f"Records 1 to {self._start.sequence} are not here, and were not checked."
        if not self._keys:
            yield "Signatures of heads were not checked: no --key was given."
        after = head.sequence - self._covered
        if after:
            span = (
                f"Records {self._covered + 1} to {head.sequence} are"
                if after > 1
                else f"Record {head.sequence}, which is the last signed head itself, is"
                if self._ends_with_head
                else f"Record {head.sequence} is"
            )
            yield (
                f"{span} covered by no signed head: whoever can write the files can have changed "
                "or removed what is not covered, and more after it."
            )
        if not expected:
            yield (
                "A journal that was cut back to an older signed head looks whole: only "
                "--expect-head, with a head that was kept elsewhere, shows that."
            )


def _file(path: Path) -> JournalFile:
    first = promised(path)
    if first is None:  # a copy under another name
        line = next(lines_of(path), b"").removesuffix(b"\n")
        try:
            first = fmt.decode(line).seq
        except AuditChainBroken:
            first = 1
    return JournalFile(first, path)


def _start(files: list[JournalFile], partial: bool) -> Head:
    """Return what the first record has to continue."""
    if not files or files[0].first == 1:
        return Head(0, GENESIS)
    first = files[0]
    if not partial:
        raise AuditChainBroken(
            f"{first.path}, line 1: the journal begins with record {first.first}: what came before "
            "is missing. If it is kept elsewhere, say --partial."
        )
    return Head(first.first - 1, "")


def _given(note: str, keys: Sequence[VerifierKey]) -> tuple[str, Head]:
    try:
        return _expected("The expected head", note, keys)
    except InvalidSignature as error:
        raise InvalidSignature(f"The expected head cannot be used. {error.message}") from error


def _expected(what: str, note: str, keys: Sequence[VerifierKey]) -> tuple[str, Head]:
    text = signed_note.verified(note, keys) if keys else signed_note.text_of(note)
    return what, audit_head.decode(text)[0]


def _kept(folder: Path, keys: Sequence[VerifierKey]) -> list[tuple[str, Head]]:
    """Return the head that lies beside the journal, if there is one."""
    path = folder / HEAD_NAME
    try:
        note = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuditUnavailable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise AuditChainBroken(f"{path}: This is not a signed note.") from error
    try:
        return [_expected(f"The head in {path}", note, keys)]
    except InvalidSignature as error:
        raise AuditChainBroken(f"{path}: {error.message}") from error
