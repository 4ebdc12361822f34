"""An `AsyncAgent` behind the surface of `Agent`, so that one suite holds for both.

It runs an event loop in a thread of its own. What is awaitable is waited for; nothing else is done
here.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from keycustody import aio


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def wait(self, awaitable: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Blocking:
    """Any object of `keycustody.aio`, whose coroutines are run to their end."""

    def __init__(self, loop: Loop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._call(found) if callable(found) else self._shown(found)

    def __repr__(self) -> str:
        return repr(self._inner).replace("keycustody.aio.Async", "keycustody.")

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            if inspect.isasyncgen(answer):
                return self._iterated(answer)
            return self._shown(self._loop.wait(answer) if inspect.iscoroutine(answer) else answer)

        return call

    def _iterated(self, answers: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(answers, None)

        while (answer := self._loop.wait(following())) is not None:
            yield answer

    def _shown(self, value: Any) -> Any:
        mine = isinstance(value, aio.AsyncAgent | aio.AsyncSession)
        return Blocking(self._loop, value) if mine else value
