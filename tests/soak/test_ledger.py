"""The comparison of a journal with what clients saw finds whatever does not fit."""

from typing import Any

import pytest

from tests.soak.ledger import Seen, unexplained


def seen(code: str = "", request: str = "") -> Seen:
    return Seen("sign", "aa", code, request, 0.0, 1.0)


def record(result: str = "OK", request: str = "r1", item: str = "OK") -> dict[str, Any]:
    return {
        "seq": 1,
        "principal": "demo",
        "operation": "sign",
        "request": request,
        "items": [f"aa:{item}"],
        "context": {},
        "result": result,
    }


@pytest.mark.parametrize(
    ("calls", "records"),
    [
        ([seen()], [record()]),
        ([seen("TOKEN_UNAVAILABLE", "r1")], [record("TOKEN_UNAVAILABLE")]),
        # Written as if it succeeded, and then as it was.
        ([seen("TOKEN_UNAVAILABLE", "r1")], [record(), record("TOKEN_UNAVAILABLE")]),
        ([seen("DEADLINE_EXCEEDED")], []),
        ([seen("DEADLINE_EXCEEDED")], [record()]),
        ([seen("OVERLOADED", "r1")], []),
    ],
)
def test_what_fits(calls: list[Seen], records: list[dict[str, Any]]) -> None:
    assert unexplained(calls, records) == []


@pytest.mark.parametrize(
    ("calls", "records"),
    [
        ([seen()], []),
        ([], [record()]),
        ([seen()], [record(), record(request="r2")]),
        ([seen(), seen()], [record()]),
        ([seen()], [record("TOKEN_UNAVAILABLE")]),
        ([seen()], [record(item="INVALID_POINT")]),
        ([seen("TOKEN_UNAVAILABLE", "r1")], []),
        ([seen("TOKEN_UNAVAILABLE", "r1")], [record()]),
        ([], [record("TOKEN_UNAVAILABLE")]),
    ],
)
def test_what_does_not_fit(calls: list[Seen], records: list[dict[str, Any]]) -> None:
    assert unexplained(calls, records)
