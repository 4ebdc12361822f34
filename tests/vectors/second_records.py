"""A second reader of the JSON formats: docs/format.md, 7 and 8, on the standard library alone."""

import json
from hashlib import sha256
from typing import Any

STATES = ("active", "retired", "revoked", "destroyed")
STATE_MEMBERS = [
    "v",
    "name",
    "version",
    "id",
    "purpose",
    "algorithm",
    "public_sha256",
    "witness",
    "state",
    "time",
    "reason",
]
ADOPTED_MEMBERS = ["label", "weaker", "public_key"]
LINE_MEMBERS = [
    "v",
    "seq",
    "time",
    "request",
    "principal",
    "via",
    "operation",
    "key",
    "version",
    "algorithm",
    "context",
    "items",
    "rules",
    "grant",
    "result",
    "detail",
    "count",
    "microseconds",
    "prev",
]
NUMBERS = {"v", "version", "seq", "count", "microseconds"}


class Refused(Exception):
    """The one failure: the class that the vectors name."""


def members(data: bytes, names: list[str], refusal: str, version: int = 1) -> dict[str, Any]:
    """Section 1: decode, and refuse what is not the one encoding of exactly these members."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Refused(refusal) from error
    if not isinstance(value, dict) or list(value) != names or value["v"] != version:
        raise Refused(refusal)
    if any(isinstance(value[name], int) != (name in NUMBERS) for name in names):
        raise Refused(refusal)
    if json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() != data:
        raise Refused(refusal)
    return value


def state(records: list[bytes]) -> str:
    """Section 7: the worst state of records that agree on all the rest."""
    refusal = "KEY_NOT_TRUSTED"
    found = [_state_record(record, refusal) for record in records]
    same = [*STATE_MEMBERS[:7], *ADOPTED_MEMBERS]
    subjects = {tuple(str(record.get(name)) for name in same) for record in found}
    unknown = {record["state"] for record in found} - set(STATES)
    odd = {len(record["witness"]) for record in found} - {0, 144}
    if odd or len(subjects) != 1 or unknown or any(len(record) > 4096 for record in records):
        raise Refused(refusal)
    return max((str(record["state"]) for record in found), key=STATES.index)


def _state_record(record: bytes, refusal: str) -> dict[str, Any]:
    adopted = record.startswith(b'{"v":2,')
    names = [*STATE_MEMBERS, *ADOPTED_MEMBERS] if adopted else STATE_MEMBERS
    found = members(record, names, refusal, 2 if adopted else 1)
    if not adopted and len(found["id"]) != 32:
        raise Refused(refusal)
    if adopted:
        weaker = found["weaker"]
        odd = len(found["id"]) % 2 or not 2 <= len(found["id"]) <= 510
        if odd or weaker != sorted(set(weaker)) or not found["public_key"]:
            raise Refused(refusal)
    return found


def head(lines: list[bytes]) -> tuple[str, int]:
    """Section 8: the head of the chain and how many lines it has, up to the first that breaks it;
    raises `Refused` with the number of that line as its second argument."""
    prev = "0" * 64
    for number, line in enumerate(lines, start=1):
        try:
            record = members(line, LINE_MEMBERS, "AUDIT_CHAIN_BROKEN")
        except Refused as refused:
            raise Refused(*refused.args, number) from refused
        if (record["seq"], record["prev"]) != (number, prev):
            raise Refused("AUDIT_CHAIN_BROKEN", number)
        prev = sha256(line).hexdigest()
    return prev, len(lines)
