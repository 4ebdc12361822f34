"""What is held, for how long, and who fetches what is missing. No I/O: the clock is a list."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.client.calls import Beside, Flow, Wait
from keycustody.client.flows import leased
from keycustody.client.leases import Lease, Leases

MUCH = Lease(seconds=100, messages=100, bytes=100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def filled(clock: Clock, lease: Lease, capacity: int = 8) -> Leases[str, str]:
    held: Leases[str, str] = Leases(clock, capacity)
    held.claim("k", 0)
    held.fill("k", "value", lease)
    return held


def test_age(clock: Clock) -> None:
    held = filled(clock, Lease(10, 100, 100))
    clock.now = 9.9
    assert held.take("k", 1) == "value"
    clock.now = 10
    assert held.take("k", 1) is None
    assert len(held) == 0


def test_messages(clock: Clock) -> None:
    held = filled(clock, Lease(10, 2, 100))
    assert [held.take("k", 0) for _ in range(3)] == ["value", "value", None]
    assert len(held) == 0


def test_bytes(clock: Clock) -> None:
    held = filled(clock, Lease(10, 100, 10))
    assert [held.take("k", size) for size in (4, 6, 1)] == ["value", "value", None]


def test_bytes_counted_afterwards(clock: Clock) -> None:
    held = filled(clock, Lease(10, 100, 10))
    held.take("k", 0)
    held.charge("k", 11)
    held.charge("absent", 1)
    assert held.take("k", 0) is None


def test_old_entries_go_when_another_comes(clock: Clock) -> None:
    held = filled(clock, Lease(10, 1, 1))
    clock.now = 10
    held.claim("other", 0)
    held.fill("other", "value", MUCH)
    assert len(held) == 1


def test_capacity_drops_what_was_used_longest_ago(clock: Clock) -> None:
    held = filled(clock, MUCH, capacity=2)
    for ident in ("a", "b"):
        held.take("k", 0)
        held.claim(ident, 0)
        held.fill(ident, ident, MUCH)
    assert (len(held), held.take("k", 0), held.take("a", 0)) == (2, "value", None)


def test_closed_holds_nothing(clock: Clock) -> None:
    held = filled(clock, MUCH)
    held.claim("late", 0)
    held.close()
    held.fill("late", "value", MUCH)
    assert len(held) == 0
    assert held.take("k", 0) is None


def test_one_fetches_and_the_others_wait(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8)
    mine, theirs = held.claim("k", 0), held.claim("k", 0)
    assert (mine.value, mine.pending) == (None, None)
    assert theirs.pending is not None
    assert not theirs.pending.done()
    held.fill("k", "value", MUCH)
    assert theirs.pending.done()
    assert held.claim("k", 0).value == "value"


def test_the_next_is_due_ahead_of_time_for_one_user(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8, ahead=0.2)
    held.claim("k", 0)
    held.fill("k", "old", Lease(100, 10, 1000))
    clock.now = 79.9
    assert held.take("k", 1) == "old"
    clock.now = 80
    assert held.take("k", 1) is None  # claim it
    mine, theirs = held.claim("k", 1), held.claim("k", 1)
    assert (mine.value, mine.due) == ("old", True)
    assert (theirs.value, theirs.due) == ("old", False)
    assert held.take("k", 1) == "old"
    held.fill("k", "new", Lease(100, 10, 1000))
    clock.now = 159
    assert held.take("k", 1) == "new"


@pytest.mark.parametrize(("uses", "size"), [(8, 1), (4, 200)], ids=["messages", "bytes"])
def test_what_is_nearly_used_up_is_due(clock: Clock, uses: int, size: int) -> None:
    held: Leases[str, str] = Leases(clock, 8, ahead=0.2)
    held.claim("k", 0)
    held.fill("k", "old", Lease(100, 10, 1000))
    assert [held.claim("k", size).due for _ in range(uses + 1)] == [False] * uses + [True]


def test_a_renewal_that_failed_is_due_again_after_a_pause(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8, ahead=0.2)
    held.claim("k", 0)
    held.fill("k", "old", Lease(100, 100, 1000))
    tries = []
    for now in range(80, 100):
        clock.now = now
        claim = held.claim("k", 1)
        assert claim.value == "old"
        if claim.due:
            tries.append(now)
            held.abandon("k")
    assert (tries[:3], len(tries)) == ([80, 84, 88], 10)
    clock.now = 100
    assert held.claim("k", 1).value is None


def test_who_comes_after_the_end_waits_for_a_renewal_under_way(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8, ahead=0.2)
    held.claim("k", 0)
    held.fill("k", "old", Lease(100, 100, 1000))
    clock.now = 99
    assert held.claim("k", 1).due
    clock.now = 101
    assert held.claim("k", 1).pending is not None
    held.fill("k", "new", MUCH)
    assert held.claim("k", 1).value == "new"


def run(flow: Flow[Any]) -> Any:
    try:
        step = next(flow)
        while True:
            if isinstance(step, Beside):
                run(step.flow)
                step = flow.send(None)
            else:
                assert isinstance(step, Wait)
                step = flow.send(step.future.result())
    except StopIteration as stop:
        return stop.value


def fetcher(log: list[int], lease: Lease, before: Callable[[], object]) -> Any:
    def fetch() -> Flow[tuple[str, Lease]]:
        yield from ()
        before()
        log.append(1)
        return f"value {len(log)}", lease

    return fetch


def test_many_threads_fetch_once(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8)
    log: list[int] = []
    barrier, results = threading.Barrier(16), []
    fetch = fetcher(log, MUCH, lambda: threading.Event().wait(0.05))

    def work() -> None:
        barrier.wait()
        results.append(run(leased(held, "k", 1, fetch)))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, len(log)) == (["value 1"] * 16, 1)


def test_a_failed_fetch_lets_the_next_one_try(clock: Clock) -> None:
    held: Leases[str, str] = Leases(clock, 8)

    def fail() -> Flow[tuple[str, Lease]]:
        yield from ()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(leased(held, "k", 0, fail))
    log: list[int] = []
    assert run(leased(held, "k", 0, fetcher(log, MUCH, lambda: None))) == "value 1"


@given(
    lease=st.builds(Lease, st.integers(0, 20), st.integers(0, 5), st.integers(0, 50)),
    uses=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 8)), max_size=30),
    ahead=st.sampled_from([0.0, 0.2]),
)
def test_nothing_is_used_beyond_its_lease(
    lease: Lease, uses: list[tuple[int, float]], ahead: float
) -> None:
    """Each value: the use it was fetched for, and beyond it only what the lease allows."""
    clock = Clock()
    held: Leases[str, str] = Leases(clock, 8, ahead=ahead)
    log: list[int] = []
    used: dict[str, list[tuple[float, int]]] = {}
    for size, pause in uses:
        clock.now += pause
        value = run(leased(held, "k", size, fetcher(log, lease, lambda: None)))
        used.setdefault(value, []).append((clock.now, size))
    for uses_of_one in used.values():
        if len(uses_of_one) > 1:
            assert len(uses_of_one) <= lease.messages
            assert sum(size for _, size in uses_of_one) <= lease.bytes
            assert uses_of_one[-1][0] - uses_of_one[0][0] < lease.seconds
