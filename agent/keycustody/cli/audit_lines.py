"""One line for each audit record, for people; and times as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from keycustody.cli.text import printable
from keycustody.errors import InvalidRequest

if TYPE_CHECKING:
    from keycustody.formats.audit import AuditRecord

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: Characters of a detail: more is in the JSON.
_DETAIL = 80


def describe(record: "AuditRecord") -> str:
    """Say in one line what a record says, aligned with others of its kind."""
    key = f"{record.key}.v{record.version}" if record.version else record.key or "-"
    fields = (
        (record.time, 27),
        (str(record.seq), 8),
        (record.principal, 12),
        (record.via.partition(":")[0], 7),
        (record.operation, 10),
        (key, 20),
        (record.result, 17),
        (record.grant or "-", 12),
    )
    parts = [printable(text).ljust(width) for text, width in fields]
    return "  ".join([*parts, _rest(record)]).rstrip()


def moment(text: str) -> datetime:
    """Return the time of an ISO 8601 date or time (UTC unless it says), or of so long ago."""
    if match := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is no time: say 2026-01-31, 2026-01-31T12:00Z, or 90m, 2h, 7d ago."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def stamp_of(time: datetime) -> str:
    """Return a time as records have it, which sort as text."""
    utc = time.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _rest(record: "AuditRecord") -> str:
    parts = []
    if record.count > 1:
        parts.append(f"x{record.count}")
    if len(record.items) > 1:
        parts.append(f"{len(record.items)} items")
    if record.context:
        parts.append(" ".join(f"{name}={value}" for name, value in record.context.items()))
    if record.detail and record.operation != "head":
        parts.append(record.detail)
    text = printable("; ".join(parts))
    return text if len(text) <= _DETAIL else f"{text[: _DETAIL - 3]}..."
