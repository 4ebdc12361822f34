"""Labels are bounded whatever callers send, and durations land in their buckets."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.custody.operation import Caller
from keycustody.errors import BY_CODE
from keycustody.telemetry.tally import BOUNDS, OPERATIONS, OTHER, Histogram, Tally


def entry(principal: str, operation: str, key: str, result: str) -> Any:
    """What the tally reads of an entry."""
    caller = Caller(principal, "socket", "ab" * 16, time.monotonic())
    return SimpleNamespace(
        caller=caller,
        operation=operation,
        key=key,
        result=result,
        waited=0.001,
        seconds=0.002,
        codes=["OK"],
    )


@given(st.lists(st.tuples(*[st.text(max_size=8)] * 4), max_size=50))
def test_what_callers_make_up_makes_no_labels(asked: list[tuple[str, str, str, str]]) -> None:
    tally = Tally()
    tally.known_by(lambda name: name == "demo", lambda name: name == "release")
    for one in [*asked, ("demo", "sign", "release", "OK")]:
        tally.answered(entry(*one))
    for principal, operation, key, result in tally.requests:
        assert principal in {"demo", OTHER}
        assert operation in OPERATIONS | {OTHER}
        assert key in {"release", "", OTHER}
        assert result in {"OK", OTHER, *BY_CODE}  # Hypothesis knows the names of our codes, too
    assert tally.requests["demo", "sign", "release", "OK"] >= 1
    assert sum(tally.requests.values()) == len(asked) + 1


@pytest.mark.parametrize("index", range(len(BOUNDS)))
def test_a_duration_counts_up_to_its_bound(index: int) -> None:
    histogram = Histogram()
    histogram.observe(BOUNDS[index])
    histogram.observe(BOUNDS[index] * 1.0001)
    assert histogram.counts[index] == histogram.counts[index + 1] == 1
    assert histogram.total == pytest.approx(BOUNDS[index] * 2, rel=0.001)
