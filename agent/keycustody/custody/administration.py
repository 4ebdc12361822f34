"""Changes to the keys, asked of a running agent by its operators."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from keycustody.custody.lifecycle import Actor, Change, Executor, Report
from keycustody.custody.operation import Caller, Desk


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked; `read` makes the change of it, or raises `InvalidRequest`."""

    operation: str
    key: str
    version: int
    read: Callable[[], Change]
    dry_run: bool


async def change_keys(desk: Desk, caller: Caller, executor: Executor, order: Order) -> Report:
    """Make a change, or say what it would do; only the operators' principal may ask.

    A caller that goes away takes nothing with it: what was begun is brought to its end.
    """
    async with desk.operation(caller, order.operation, key=order.key) as entry:
        entry.grant = desk.rules.decide_admin(caller.principal, order.operation)
        entry.version = order.version
        actor = Actor(caller.principal, desk.rules.digest, caller.via, caller.request)
        work = asyncio.ensure_future(executor.run(order.read(), actor, dry_run=order.dry_run))
        # Nobody may be left to hear of a failure; the records of its steps tell it.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        report = await asyncio.shield(work)
        if order.dry_run:
            entry.detail = "a plan only: nothing was changed"
        return report
