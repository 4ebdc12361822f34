"""Counters as the audit journal has them: what was used is used, also after a restart."""

from datetime import UTC, datetime
from pathlib import Path

from keycustody.custody.access.counters import Counters
from keycustody.custody.access.rules import Rules
from keycustody.custody.audit.files import files_of
from keycustody.custody.audit.reading import lines_since
from keycustody.custody.clock import read_stamp
from keycustody.errors import AuditChainBroken
from keycustody.formats.audit import AuditRecord, Head, line_hash


def rebuilt(rules: Rules, folder: Path, now: float) -> Counters:
    """Return the counters of these rules at that time, from the journal in that folder.

    Reads no more of it than the longest window asks for. Raises `AuditChainBroken` if a record
    there is none, was edited, or is missing, because what was used cannot be known then, and
    `AuditUnavailable`.
    """
    counters = Counters(rules.grants)
    if counters.reach:
        since = datetime.fromtimestamp(max(0.0, now - counters.reach), UTC)
        head: Head | None = None
        for line, record in lines_since(folder, since):
            if not _follows(record, head, folder):
                raise AuditChainBroken(
                    f"The audit journal does not go on from one record to number {record.seq}, and "
                    "budgets or rates reach back to there; put what is missing back into "
                    f"{folder}, or keep all of it elsewhere and begin anew (docs/policy.md)."
                )
            head = Head(record.seq, line_hash(line))
            counters.replay(record, read_stamp(record.time))
    return counters


def _follows(record: AuditRecord, head: Head | None, folder: Path) -> bool:
    """Does it continue the record before it? There is one: the first of all, or an older one."""
    if head is not None:
        return (record.seq, record.prev) == (head.sequence + 1, head.hash)
    return record.seq == 1 or record.seq > files_of(folder)[0].first
