"""What clients saw, and whether the audit journal says the same, record for record.

Clients of the soak send each call once: what gRPC would repeat by itself is switched off
(`no_retries`), so that one call is one request. A record is told by the request's id where a client
got one (with each error of the agent), and else by what was asked: the hash of its input, or the
context, which no other call has.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keycustody.client import channel

#: What the client cannot know of a call that ended so: whether the agent did it.
UNKNOWN = frozenset(
    {"AGENT_GONE", "AGENT_UNREACHABLE", "AUDIT_UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"}
)
#: Refused before there is anything to record.
UNRECORDED = frozenset({"OVERLOADED"})
#: What clients of the soak ask for.
BY_INPUT = ("sign", "agree", "decrypt")
BY_CONTEXT = ("generate", "unwrap", "rewrap")


@dataclass(frozen=True, slots=True)
class Seen:
    """One call: what it asked, and how it ended. `mark` is the sha256 of its input, or the context;
    `code` is empty for an answer; `request` is the id that an error came with."""

    operation: str
    mark: str
    code: str
    request: str
    begun: float
    ended: float


def no_retries() -> None:
    """Have every connection of this process send a call once."""
    channel.OPTIONS[:] = [
        *(option for option in channel.OPTIONS if option[0] != "grpc.enable_retries"),
        ("grpc.enable_retries", 0),
    ]


def unexplained(seen: Iterable[Seen], records: Iterable[dict[str, Any]]) -> list[str]:
    """Return what does not fit, one sentence each."""
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["principal"] == "demo" and record["operation"] in BY_INPUT + BY_CONTEXT:
            last[record["request"]] = record  # a later record of one request counts
    answered: Counter[tuple[str, str]] = Counter()
    perhaps: Counter[tuple[str, str]] = Counter()
    found = []
    for one in seen:
        what = one.operation, one.mark
        answered[what] += not one.code
        perhaps[what] += one.code in UNKNOWN
        if one.request and one.code not in UNKNOWN | UNRECORDED:
            found += _of_failure(one, last.pop(one.request, None))
    done: dict[tuple[str, str], int] = defaultdict(int)
    for record in last.values():
        what = record["operation"], _mark(record)
        if _outcome(record) == "OK":
            done[what] += 1
        elif not perhaps[what] and not (not what[1] and perhaps):
            found.append(f"record {record['seq']} says {_outcome(record)}, and nobody saw it")
    for what in {*done, *answered}:
        least, most = answered[what], answered[what] + perhaps[what]
        if not least <= done[what] <= most:
            found.append(f"{what}: {done[what]} records, and {least} to {most} calls")
    return found


def _of_failure(seen: Seen, record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return [f"request {seen.request} was {seen.code}, and has no record"]
    if _outcome(record) != seen.code:
        return [f"request {seen.request} was {seen.code}; its record says {_outcome(record)}"]
    return []


def _mark(record: dict[str, Any]) -> str:
    if record["operation"] in BY_CONTEXT:
        return str(record["context"].get("order", ""))
    return str(record["items"][0].partition(":")[0]) if record["items"] else ""


def _outcome(record: dict[str, Any]) -> str:
    if record["result"] == "OK" and record["items"]:
        return str(record["items"][0].partition(":")[2])
    return str(record["result"])
