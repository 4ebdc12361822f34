"""Counters against a list of everything that happened."""

import hashlib
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keycustody.config import GrantSettings, RateSettings
from keycustody.custody.access.counters import Bucket, Charge, Counters, Use
from keycustody.custody.access.grants import Ask, Grant
from keycustody.custody.access.rules import grants_of
from keycustody.custody.audit import draft
from keycustody.custody.clock import Clock


def grant(**members: Any) -> Grant:
    plain = {"name": "g", "principals": ("p", "q"), "keys": ("k",), "operations": ("unwrap",)}
    return grants_of((GrantSettings.model_validate(plain | members),))[0]


KEYS = [hashlib.sha256(bytes([n])).digest() for n in range(8)]
SHORT, LONG = 5, 20
BUDGETED = grant(
    budgets=(
        {"session_keys": 3, "seconds": SHORT},
        {"session_keys": 5, "seconds": LONG},
    )
)


class Budgets(RuleBasedStateMachine):
    """Requests overlap, succeed, fail in part; time passes; the agent restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.counters = Counters([BUDGETED])
        self.now = 1000.0
        self.open: list[tuple[Charge, frozenset[bytes]]] = []
        self.unwrapped: list[tuple[float, frozenset[bytes]]] = []

    def counted(self, seconds: int) -> set[bytes]:
        """The oracle: look at everything that ever happened, and at what is under way."""
        recent = (keys for at, keys in self.unwrapped if self.now - at < seconds)
        return set(itertools.chain(*recent, *(keys for _, keys in self.open)))

    @rule(keys=st.frozensets(st.sampled_from(KEYS), min_size=1, max_size=4))
    def ask(self, keys: frozenset[bytes]) -> None:
        ask = Ask("p", "unwrap", "k", {}, len(keys), keys)
        refused = BUDGETED.refusal(ask, self.counters, self.now)
        fits = all(
            keys <= counted or len(counted | keys) <= budget.session_keys
            for budget in BUDGETED.budgets
            for counted in [self.counted(budget.seconds)]
        )
        assert (refused is None) is fits
        if refused is None:
            charge = self.counters.reserve(BUDGETED, ask, self.now)
            assert charge is not None
            self.open.append((charge, keys))
        else:
            assert refused.wait > 0

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        charge, keys = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        done = data.draw(st.frozensets(st.sampled_from(sorted(keys))))
        charge.settle(done, self.now)
        self.unwrapped.append((self.now, done))

    @rule(seconds=st.sampled_from([0.5, 1, SHORT - 0.5, SHORT, LONG]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.open)
    @rule()
    def restart(self) -> None:
        self.counters = Counters([BUDGETED])
        for at, keys in self.unwrapped:
            self.counters.replay(record(keys), at)

    @invariant()
    def nobody_has_more_than_allowed(self) -> None:
        for budget in BUDGETED.budgets:
            assert len(self.counted(budget.seconds)) <= budget.session_keys
        assert {
            (use.window, use.used) for use in self.counters.usage(self.now) if use.principal == "p"
        } == {(b.seconds, len(self.counted(b.seconds))) for b in BUDGETED.budgets}
        assert all(u.used == 0 for u in self.counters.usage(self.now) if u.principal == "q")


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def record(keys: frozenset[bytes], **members: Any) -> Any:
    plain = {"request": "", "principal": "p", "via": "", "operation": "unwrap", "rules": ""}
    items = [f"{key.hex()}:OK" for key in keys] + [f"{KEYS[0].hex()}:WRAPPED_KEY_REJECTED"]
    return draft(**{**plain, "items": items, "grant": "g", **members})


@pytest.mark.parametrize(
    "members",
    [
        {"grant": ""},
        {"grant": "else"},
        {"principal": "stranger"},
        {"operation": "rewrap"},
        {"result": "CANCELLED"},
    ],
)
def test_records_of_something_else_are_not_counted(members: dict[str, str]) -> None:
    counters = Counters([BUDGETED])
    counters.replay(record(frozenset(KEYS[:2]), **members), 1.0)
    assert all(use.used == 0 for use in counters.usage(1.0))


@given(
    st.floats(0.1, 10),
    st.integers(1, 6),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 7)), max_size=30),
)
def test_a_rate_allows_no_more_than_burst_and_what_filled_up(
    per_second: float, burst: int, asked: list[tuple[float, int]]
) -> None:
    limited = grant(rate={"per_second": per_second, "burst": burst})
    counters, now = Counters([limited]), 0.0
    taken: list[tuple[float, int]] = []
    for pause, count in asked:
        now += pause
        ask = Ask("p", "unwrap", "k", {}, count)
        refused = limited.refusal(ask, counters, now)
        if refused is None:
            counters.reserve(limited, ask, now)
            taken.append((now, count))
        elif count <= burst:
            # What it says about when to try again is true.
            assert limited.refusal(ask, counters, now + refused.wait) is None
    for start, (since, _) in enumerate(taken):
        for end in range(start, len(taken)):
            spent = sum(count for _, count in taken[start : end + 1])
            assert spent <= burst + per_second * (taken[end][0] - since) + 1e-6


def test_a_bucket_fills_up_to_its_burst_and_no_further() -> None:
    rate, bucket = RateSettings(per_second=2, burst=4), Bucket()
    bucket.take(4, rate, 100.0)
    assert [bucket.left(rate, 100.0 + s) for s in (0, 0.5, 2, 1000)] == [0, 1, 4, 4]


def test_a_reload_goes_on_counting_under_the_same_name() -> None:
    counters = Counters([BUDGETED])
    counters.replay(record(frozenset(KEYS[:3])), 1.0)
    wider = grant(budgets=({"session_keys": 7, "seconds": SHORT},))
    counters.follow([wider])
    assert Use("g", "p", SHORT, 3, 7) in set(counters.usage(1.0))
    counters.follow([])
    counters.follow([wider])
    assert Use("g", "p", SHORT, 0, 7) in set(counters.usage(1.0))


def test_the_past_matters_as_far_as_the_longest_window() -> None:
    assert Counters([BUDGETED]).reach == LONG
    assert Counters([grant(rate={"per_second": 0.1, "burst": 6})]).reach == 60
    assert Counters([grant()]).reach == 0


def test_time_never_goes_backwards() -> None:
    wall, ticks = [100.0], [0.0]
    clock = Clock(50.0, wall=lambda: wall[0], monotonic=lambda: ticks[0])
    assert clock.now() == 100.0
    wall[0], ticks[0] = 10.0, 3.0  # set back by 93 s, 3 s later
    assert clock.now() == 103.0
    assert clock.behind == 93.0
    assert list(clock.findings())
    wall[0], ticks[0] = 104.0, 3.5  # and set right again
    assert clock.now() == 104.0
    assert not list(clock.findings())


def test_it_begins_where_the_journal_ended() -> None:
    clock = Clock(1000.0, wall=lambda: 1.0, monotonic=lambda: 7.0)
    assert clock.now() == 1000.0


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e4))))
def test_no_call_returns_less_than_the_one_before(steps: list[tuple[float, float]]) -> None:
    wall, ticks = [0.0], [0.0]
    clock = Clock(wall=lambda: wall[0], monotonic=lambda: ticks[0])
    times = []
    for jump, passed in steps:
        wall[0] += jump
        ticks[0] += passed
        times.append(clock.now())
    assert times == sorted(times)
