"""The principals' sockets: one listener each, which come and go with the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from keycustody.config import PrincipalSettings, Settings
from keycustody.daemon.reloading import Commit
from keycustody.service.listeners import Listener

#: Opens the listener of one principal.
Open = Callable[[Settings, str], AbstractAsyncContextManager[Listener]]


@dataclass(frozen=True, slots=True)
class _Socket:
    listener: Listener
    principal: PrincipalSettings
    closing: AsyncExitStack


class Sockets:
    """The listeners that serve now. Use as an async context manager, after `open`."""

    def __init__(self, opener: Open) -> None:
        self._opener = opener
        self._sockets: dict[str, _Socket] = {}
        self._serving = False

    async def __aenter__(self) -> "Sockets":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await _close(self._sockets.values())

    async def open(self, settings: Settings) -> None:
        """Open every socket of the settings. What raises leaves those that are open to the end of
        the block."""
        for name in settings.socket_names:
            self._sockets[name] = await self._start(settings, name)

    async def set_serving(self, serving: bool) -> None:
        """Tell the health checks of all, and of those to come, if that is news."""
        if serving is not self._serving:
            self._serving = serving
            for socket in tuple(self._sockets.values()):
                await socket.listener.set_serving(serving)

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Commit]:
        """Open the new sockets and give the others to their groups; once all follow, close those
        that are no longer named, when calls under way have ended."""
        wanted = {name: principal_of(new, name) for name in new.socket_names}
        opened: dict[str, _Socket] = {}
        changed: list[_Socket] = []

        def commit() -> None:
            self._sockets = {
                name: opened.get(name)
                or _Socket(self._sockets[name].listener, who, self._sockets[name].closing)
                for name, who in wanted.items()
            }

        before = self._sockets
        try:
            for name, who in wanted.items():
                if name not in before:
                    opened[name] = await self._start(new, name)
                elif who.group != before[name].principal.group:
                    changed.append(before[name])
                    before[name].listener.open_to(who)
            yield commit
        except BaseException:
            await _close(opened.values())
            for socket in changed:
                socket.listener.open_to(socket.principal)
            raise
        await _close(socket for name, socket in before.items() if name not in wanted)

    async def _start(self, settings: Settings, name: str) -> _Socket:
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(self._opener(settings, name))
            await listener.set_serving(self._serving)
            return _Socket(listener, principal_of(settings, name), stack.pop_all())
        raise AssertionError("an exit stack swallows nothing")


def principal_of(settings: Settings, name: str) -> PrincipalSettings:
    """Return a principal's settings; the operators' have none of their own."""
    return settings.principals.get(name, PrincipalSettings())


async def _close(sockets: Iterable[_Socket]) -> None:
    await asyncio.gather(*(socket.closing.aclose() for socket in sockets))
