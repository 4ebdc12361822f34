"""When versions last served: what counts as serving, and what the journal cannot tell."""

import pytest

from keycustody.custody.audit import draft
from keycustody.custody.usage import history, moved_to
from keycustody.formats.audit import AuditRecord

OK, FAULT = "0" * 64 + ":OK", "0" * 64 + ":WRAPPED_KEY_REJECTED"


def record(operation: str, version: int = 1, **more: object) -> AuditRecord:
    known: dict[str, object] = {"key": "invoices", "items": [OK]} | more
    return draft(
        request="", principal="p", via="socket", operation=operation, rules="",
        version=version, **known,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_last_one_counts() -> None:
    records = [record("generate"), record("unwrap"), record("generate", 2)]
    found = history(records, "invoices")
    assert found.since == records[0].time
    assert {n: (s.requests, s.operation, s.last) for n, s in found.versions.items()} == {
        1: (2, "unwrap", records[1].time),
        2: (1, "generate", records[2].time),
    }


def test_a_rewrap_uses_two_versions() -> None:
    found = history([record("rewrap", detail=moved_to(3))], "invoices")
    assert sorted(found.versions) == [1, 3]
    assert sorted(history([record("rewrap", 3, detail=moved_to(3))], "invoices").versions) == [3]


@pytest.mark.parametrize(
    "other",
    [
        record("unwrap", key="receipts"),
        record("unwrap", result="PERMISSION_DENIED"),
        record("unwrap", items=[FAULT, FAULT]),
        record("unwrap", 0),
        record("read"),
        record("revoke"),
    ],
    ids=["another key", "refused", "every item failed", "no version", "only read", "administered"],
)
def test_what_is_no_service(other: AuditRecord) -> None:
    found = history([other], "invoices")
    assert (found.versions, found.since) == ({}, other.time)


def test_one_good_item_is_service() -> None:
    assert history([record("unwrap", items=[FAULT, OK])], "invoices").versions[1].requests == 1


def test_an_empty_journal_tells_nothing() -> None:
    assert history([], "invoices").since == ""
