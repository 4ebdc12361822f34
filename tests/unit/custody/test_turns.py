"""Places are shared in round robin, never more than there are, and none is lost."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.custody.turns import Turns
from keycustody.errors import DeadlineExceeded

FOREVER = 60.0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Works:
    """Takes places and gives them back when it is told; notes who got one, in order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: list[str] = []
        self.at_work: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        #: Whose place was given back by somebody else.
        self.gone: Counter[str] = Counter()
        self.enough = asyncio.Semaphore(0)

    async def work(self, who: str) -> None:
        await self.turns.take(who, FOREVER)
        self.began.append(who)
        self.at_work[who] += 1
        self.most[who] = max(self.most[who], self.at_work[who])
        self.most["all"] = max(self.most["all"], self.at_work.total())
        try:
            await self.enough.acquire()
        finally:
            if self.gone[who]:
                self.gone[who] -= 1
            else:
                self.at_work[who] -= 1
                self.turns.give(who)


def test_principals_take_turns_however_much_one_asks() -> None:
    async def scenario() -> None:
        works = Works(Turns(1, 1))
        tasks = [asyncio.create_task(works.work("noisy")) for _ in range(100)]
        await settle()
        tasks += [asyncio.create_task(works.work(who)) for who in ("one", "two", "one")]
        await settle()
        for _ in tasks:
            works.enough.release()
            await settle()
        await asyncio.gather(*tasks)
        # The first was at work already; then each in turn.
        assert works.began[:7] == ["noisy", "noisy", "one", "two", "noisy", "one", "noisy"]
        assert len(works.began) == 103

    run(scenario())


def test_one_principal_leaves_places_to_others() -> None:
    async def scenario() -> None:
        works = Works(Turns(4, 3))
        tasks = [asyncio.create_task(works.work("noisy")) for _ in range(10)]
        await settle()
        assert works.at_work == {"noisy": 3}
        await asyncio.wait_for(works.turns.take("other", 1), 1)
        for _ in tasks:
            works.enough.release()
        await asyncio.gather(*tasks)

    run(scenario())


def test_who_waits_too_long_is_told_and_forgotten() -> None:
    async def scenario() -> None:
        turns = Turns(1, 1)
        await turns.take("a", 1)
        with pytest.raises(DeadlineExceeded):
            await turns.take("a", 0.01)
        assert turns.waiting("a") == 0
        turns.give("a")
        await asyncio.wait_for(turns.take("a", 1), 1)

    run(scenario())


def test_a_place_is_not_given_to_who_was_cancelled_just_now() -> None:
    async def scenario() -> None:
        turns = Turns(1, 1)
        await turns.take("a", FOREVER)
        waiting = [asyncio.create_task(turns.take("a", FOREVER)) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        turns.give("a")
        await asyncio.wait_for(waiting[1], 1)
        # This one has it already, and has not run since.
        turns.give("a")
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.wait_for(turns.take("a", FOREVER), 1)

    run(scenario())


def test_another_number_of_places_is_shared_out_at_once() -> None:
    async def scenario() -> None:
        works = Works(Turns(1, 1))
        tasks = [asyncio.create_task(works.work("a")) for _ in range(5)]
        await settle()
        works.turns.resize(3, 3)
        await settle()
        assert works.at_work == {"a": 3}
        works.turns.resize(1, 1)
        for _ in tasks:
            works.enough.release()
        await asyncio.gather(*tasks)

    run(scenario())


_STEP = st.tuples(
    st.sampled_from(["take", "end", "end at once", "cancel", "pass"]), st.integers(0, 30)
)


@given(st.integers(1, 4), st.integers(1, 4), st.lists(_STEP, max_size=60))
def test_no_place_is_lost_or_taken_twice(
    places: int, each: int, steps: list[tuple[str, int]]
) -> None:
    async def scenario() -> None:
        works = Works(Turns(places, each))
        tasks: list[asyncio.Task[None]] = []
        for step, number in steps:
            match step:
                case "take":
                    tasks.append(asyncio.create_task(works.work("abc"[number % 3])))
                case "end":
                    works.enough.release()
                case "end at once" if works.at_work.total():
                    who = next(iter(works.at_work.elements()))
                    works.at_work[who] -= 1
                    works.gone[who] += 1
                    works.turns.give(who)
                case "cancel" if tasks:
                    tasks[number % len(tasks)].cancel()
                case _:
                    await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        for _ in tasks:
            works.enough.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert works.most["all"] <= places
        assert all(works.most[who] <= each for who in "abc")
        # All are there again: who asks gets one at once.
        for who in ("abcd" * places)[: min(places, 4 * each)]:
            await asyncio.wait_for(works.turns.take(who, 1), 1)
        assert all(works.turns.waiting(who) == 0 for who in "abcd")

    run(scenario())
