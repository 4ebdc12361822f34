"""What is listened on: the principals' sockets, one listener each, which come and go with the
settings; and the addresses with mutual TLS."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from google.protobuf.descriptor import ServiceDescriptor

from keycustody.config import ADMIN, PrincipalSettings, Settings
from keycustody.custody import listing
from keycustody.custody.admission import Admission
from keycustody.custody.identity.judge import Mapping as Principals
from keycustody.custody.operation import Office
from keycustody.daemon.draining import Drain
from keycustody.daemon.reloading import Commit
from keycustody.service.dispatch import Gate, Identify, always
from keycustody.service.handlers import services
from keycustody.service.listeners import Bounds, Listener, SetServing, listener, tls_listener
from keycustody.service.tls import TlsFiles, by_certificate

#: Opens the listener of one principal.
Open = Callable[[Settings, str], AbstractAsyncContextManager[Listener]]


@dataclass(frozen=True, slots=True)
class Opening:
    """How listeners are opened: all by the same rules, with one admission for all."""

    office: Office
    admission: Admission
    drain: Drain

    def listener(
        self,
        settings: Settings,
        name: str,
        administer: Callable[[], Mapping[ServiceDescriptor, object]],
    ) -> AbstractAsyncContextManager[Listener]:
        """Return the listener of a principal; `administer` is what operators are served."""
        return listener(
            settings.socket_path(name),
            principal_of(settings, name),
            self._gate(always(name)),
            administer() if name == ADMIN else services(self.office),
            self._bounds(settings),
        )

    def tls_listener(
        self, settings: Settings, files: TlsFiles, principals: Principals
    ) -> AbstractAsyncContextManager[SetServing]:
        """Operators have no certificate: what administers is on their own socket alone."""
        return tls_listener(
            files.addresses,
            files.credentials,
            self._gate(by_certificate(files, principals.current)),
            services(self.office),
            self._bounds(settings),
        )

    def _gate(self, identify: Identify) -> Gate:
        office = self.office
        return Gate(identify, self.admission, office.limits, partial(listing.reject, office))

    def _bounds(self, settings: Settings) -> Bounds:
        limits = settings.limits
        return Bounds(
            limits.request_bytes,
            limits.connections,
            2 * limits.queue,
            limits.deadline_seconds,
            self.drain.left,
        )


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
