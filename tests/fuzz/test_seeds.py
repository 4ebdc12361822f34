"""The fuzzer's seeds, and some of what it would make of them, on every run of the tests."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds_of

#: What one input of up to 70,000 bytes may make any parser of ours allocate (docs/reliability.md).
MEGABYTES = 8


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_cut_or_added(name: str) -> None:
    run = TARGETS[name].run
    for seed in seeds_of(name):
        run(seed)
        run(seed + b"\0")
        run(seed + seed)
        for length in {len(seed) * part // 16 for part in range(16)}:
            run(seed[:length])


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_seeds_with_something_in_their_midst(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([*seeds_of(name)]))
    start = data.draw(st.integers(0, len(seed)))
    removed = data.draw(st.integers(0, 8))
    put = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\xff" * 10, bytes(8)]))
    TARGETS[name].run(seed[:start] + put + seed[start + removed :])


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_costs_more_memory_than_is_stated(name: str) -> None:
    run, seeds = TARGETS[name].run, [*seeds_of(name)]
    for seed in seeds:
        run(seed)  # what is kept for good, as imports and tables are
    tracemalloc.start()
    try:
        for seed in seeds:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            run(seed)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < MEGABYTES * 2**20, seed[:80]
    finally:
        tracemalloc.stop()
