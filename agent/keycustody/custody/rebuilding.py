"""Counters as the audit journal has them: what was used is used, also after a restart."""

from datetime import UTC, datetime
from pathlib import Path

from keycustody.custody.audit import records
from keycustody.custody.clock import read_stamp
from keycustody.custody.counters import Counters
from keycustody.custody.rules import Rules


def rebuilt(rules: Rules, folder: Path, now: float) -> Counters:
    """Return the counters of these rules at that time, from the journal in that folder.

    Reads no more of it than the longest window asks for. Raises `AuditChainBroken` if a record
    there is none, because what was used cannot be known then, and `AuditUnavailable`.
    """
    counters = Counters(rules.grants)
    if counters.reach:
        since = datetime.fromtimestamp(max(0.0, now - counters.reach), UTC)
        for record in records(folder, since):
            counters.replay(record, read_stamp(record.time))
    return counters
