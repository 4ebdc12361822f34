"""What a signed head says: where a journal stood, and when (docs/format.md, 10)."""

import re

from keycustody.errors import InvalidSignature
from keycustody.formats.audit import AuditRecord, Head

#: The name under which audit keys sign.
KEY_NAME = "keycustody/audit"
#: The operation of a record whose `detail` is a signed head.
HEAD = "head"

_TEXT = re.compile(
    r"keycustody\.audit\.v1\n([1-9][0-9]{0,18})\n([0-9a-f]{64})\n"
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)\n"
)


def is_head(record: AuditRecord) -> bool:
    """Is it the agent's own record of a signed head? No request can make one: its operation is an
    RPC's."""
    return (record.operation, record.via) == (HEAD, "agent")


def encode(head: Head, time: str) -> str:
    """Return the text that is signed."""
    return f"keycustody.audit.v1\n{head.sequence}\n{head.hash}\n{time}\n"


def decode(text: str) -> tuple[Head, str]:
    """Return head and time; `InvalidSignature` if the text is another's."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidSignature("The signed note is not about an audit journal.")
    return Head(int(match[1]), match[2]), match[3]
