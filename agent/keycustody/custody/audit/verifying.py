"""Checks a journal: every line of every file, and that no file is missing between two others."""

from dataclasses import dataclass
from pathlib import Path

from keycustody.custody.audit.files import JournalFile, files_of, lines_of, promised
from keycustody.errors import AuditChainBroken
from keycustody.formats import audit as fmt
from keycustody.formats.audit import Chain


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` read."""

    path: Path
    records: int
    head: str
    #: Bytes after the last line end: a record under way, or cut short; never acknowledged.
    unfinished: int


def verify(path: Path) -> Report:
    """Check every line of a journal (a folder that holds its files, or one file). It streams.

    Raises `AuditChainBroken` naming file, line and what does not fit, and `AuditUnavailable` if a
    file cannot be read.
    """
    files = files_of(path) if path.is_dir() else [JournalFile(promised(path) or 1, path)]
    chain = Chain()
    unfinished = 0
    for file in files:
        if file.first != chain.head.sequence + 1:
            raise AuditChainBroken(
                f"{file.path}: its name promises record {file.first}, and the record before it is "
                f"{chain.head.sequence}: a file is missing, or was cut."
            )
        for number, line in enumerate(lines_of(file.path), start=1):
            if not line.endswith(b"\n") and len(line) <= fmt.MAX_LINE_BYTES:
                if file is not files[-1]:
                    raise AuditChainBroken(f"{file.path}, line {number}: the file was cut.")
                unfinished = len(line)
                break
            try:
                chain.add(line.removesuffix(b"\n"))
            except AuditChainBroken as error:
                raise AuditChainBroken(f"{file.path}, line {number}: {error.message}.") from error
    return Report(path, chain.head.sequence, chain.head.hash, unfinished)
