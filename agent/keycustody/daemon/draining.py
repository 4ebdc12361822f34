"""Stopping: what was accepted is answered, within one time for all listeners together.

First the health checks say so, so that nobody new is sent here; then each listener closes, which
tells its clients to go elsewhere and waits for their calls; what is not over then is cancelled. All
else of the agent goes on meanwhile.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

Entered = TypeVar("Entered")


class Drain:
    """How long calls under way still have."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._end: float | None = None

    def begin(self) -> None:
        """The agent stops: from now on there is one end for all."""
        self._end = time.monotonic() + self._seconds()

    def left(self) -> float:
        """Return the seconds that a listener which is closed now waits for its calls."""
        return self._seconds() if self._end is None else max(0.0, self._end - time.monotonic())


class Together:
    """What is entered one after another and left all at once. Use as an async context manager."""

    def __init__(self) -> None:
        self._left: list[AsyncExitStack] = []

    async def __aenter__(self) -> "Together":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave all; what was left already stays so."""
        left, self._left = self._left, []
        await asyncio.gather(*(one.aclose() for one in left))

    async def enter(self, one: AbstractAsyncContextManager[Entered]) -> Entered:
        """Enter one more."""
        stack = AsyncExitStack()
        entered = await stack.enter_async_context(one)
        self._left.append(stack)
        return entered
