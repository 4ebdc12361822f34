"""When the versions of a key last served, as far as the audit journal tells. Pure.

A version serves when it is used and something of the request succeeded. A rewrap uses two: the one
that its record names, and the one that its detail names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from keycustody.config import PURPOSE_OF
from keycustody.formats.audit import AuditRecord

_OK = "OK"
_TARGET = re.compile(r"to version ([1-9][0-9]{0,9})")


def moved_to(version: int) -> str:
    """Return the detail of a rewrap's record."""
    return f"to version {version}"


@dataclass(slots=True)
class Served:
    """One version: how many requests it served, the time of the last and its operation."""

    requests: int = 0
    last: str = ""
    operation: str = ""


@dataclass(slots=True)
class History:
    """What a journal tells of one key. `since` is the time of its first record, "" if it has none;
    what was before that, nobody knows from it."""

    since: str = ""
    versions: dict[int, Served] = field(default_factory=dict)


def history(records: Iterable[AuditRecord], name: str) -> History:
    """Return when each version of the key served, from records in their order."""
    found = History()
    for record in records:
        found.since = found.since or record.time
        if record.key != name or record.operation not in PURPOSE_OF or not _served(record):
            continue
        for version in _versions(record):
            served = found.versions.setdefault(version, Served())
            served.requests += record.count
            served.last, served.operation = record.time, record.operation
    return found


def _served(record: AuditRecord) -> bool:
    one = any(item.endswith(f":{_OK}") for item in record.items) or not record.items
    return record.result == _OK and record.version > 0 and one


def _versions(record: AuditRecord) -> set[int]:
    target = _TARGET.search(record.detail) if record.operation == "rewrap" else None
    return {record.version} | ({int(target[1])} if target else set())
