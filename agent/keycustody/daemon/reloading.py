"""Reload: the settings file is read again, and all that follows it goes over together.

Whatever of the running agent follows the settings is a `Part`. First every part gets ready what can
fail; only when all of them are, all swap, without another request in between. If the file has a
finding or one part cannot follow, every part stays as it was. Settings of `RESTART` are taken when
the agent starts: a reload takes the rest, and says what waits.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from keycustody.config import Settings
from keycustody.daemon.systemd import Notifier
from keycustody.errors import KeycustodyError

#: Swaps one part, at once; does not fail.
Commit = Callable[[], None]

#: Sections, and members of `[limits]`, that need a restart.
RESTART = ("agent", "token", "audit", "tls", "metrics")
RESTART_LIMITS = ("request_bytes", "connections")


class Part(Protocol):
    """What follows the settings while the agent runs."""

    def prepared(self, new: Settings) -> AbstractAsyncContextManager[Commit]:
        """Entering gets ready all that can fail, and raises one of `keycustody.errors` if it does;
        no request sees a change before the commit. Leaving clears up: with an exception, what was
        made ready; without, what the commit left behind."""
        ...


class Reloader:
    """Reads the settings again and has the parts follow, in their order."""

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        parts: Sequence[Part],
        notifier: Notifier,
    ) -> None:
        self.settings = settings
        self._notifier = notifier
        self._read = read
        self._parts = parts
        self._one = asyncio.Lock()
        self._refusal = ""
        self._waiting: tuple[str, ...] = ()

    async def reload(self) -> Sequence[str]:
        """Follow the settings file; returns the settings in it that wait for a restart.

        Raises what reading raises, and what a part does; then nothing has changed.
        """
        async with self._one:
            self._notifier.reloading()
            try:
                self._waiting = await self._follow(await asyncio.to_thread(self._read))
            except KeycustodyError as error:
                self._refusal = error.message
                raise
            finally:
                self._notifier.ready()
            self._refusal = ""
            return self._waiting

    async def _follow(self, read: Settings) -> tuple[str, ...]:
        new, waiting = _followed(self.settings, read)
        async with AsyncExitStack() as stack:
            commits = [await stack.enter_async_context(part.prepared(new)) for part in self._parts]
            for commit in commits:
                commit()
            self.settings = new
        return waiting

    def findings(self) -> Iterator[str]:
        """Say what keeps the agent from running by the settings file as it is."""
        if self._refusal:
            yield f"The last reload was refused, and the rules before it hold: {self._refusal}"
        if self._waiting:
            yield f"These settings wait for a restart: {', '.join(self._waiting)}."


def _followed(old: Settings, read: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings that a running agent can follow, and the names of those it cannot."""
    sections = {name: getattr(old, name) for name in RESTART}
    limits = {name: getattr(old.limits, name) for name in RESTART_LIMITS}
    waiting = [name for name, value in sections.items() if getattr(read, name) != value]
    waiting += [
        f"limits.{name}" for name, value in limits.items() if getattr(read.limits, name) != value
    ]
    # Values of settings that were validated, so a copy needs no other validation.
    new = read.model_copy(
        update={**sections, "limits": read.limits.model_copy(update=limits)}, deep=False
    )
    return new, tuple(waiting)
