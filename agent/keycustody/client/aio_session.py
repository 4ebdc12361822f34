"""A session for asyncio: as `session.Session`, with `await`."""

import asyncio
from types import TracebackType
from typing import Final

from keycustody.client.aio_driver import AioDriver
from keycustody.client.envelopes import Bytes
from keycustody.client.files import Progress, Source, Target
from keycustody.client.session import Session
from keycustody.client.session_keys import SessionKeys
from keycustody.errors import KeycustodyError

#: A message up to this size is encrypted in the loop, within a millisecond; a larger one in a
#: thread.
INLINE_BYTES: Final = 256 * 1024


class AsyncSession:
    """Encrypts messages and files for one key and context; `AsyncAgent.session` opens one.

    For the tasks of one event loop; else as `keycustody.Session`.
    """

    def __init__(self, keys: SessionKeys, driver: AioDriver) -> None:
        self._keys = keys
        self._driver = driver

    async def __aenter__(self) -> "AsyncSession":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<keycustody.aio.AsyncSession {self._keys}>"

    @property
    def key(self) -> str:
        """The wrap key's name."""
        return self._keys.key

    @property
    def context(self) -> dict[str, str]:
        """The context that each envelope carries."""
        return self._keys.context

    @property
    def degraded(self) -> KeycustodyError | None:
        """As `Session.degraded`."""
        return self._keys.degraded

    async def encrypt(self, plaintext: Bytes, *, associated_data: Bytes = b"") -> bytes:
        """As `Session.encrypt`; a large message is encrypted in a thread."""
        size = len(plaintext)
        sealer = self._keys.ready(size)
        if sealer is None:
            sealer = await self._driver.run(self._keys.sealer(size))
        if size <= INLINE_BYTES:
            return sealer.seal(plaintext, associated_data)
        return await asyncio.to_thread(sealer.seal, plaintext, associated_data)

    async def encrypt_file(
        self,
        source: Source,
        target: Target,
        *,
        associated_data: Bytes = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `Session.encrypt_file`, in a thread, in which `progress` is called too. If the task is
        cancelled, a target that is a path is not there."""
        await self._driver.in_thread(
            lambda bridge: Session(self._keys, bridge.run).encrypt_file(
                source, target, associated_data=associated_data, progress=bridge.watched(progress)
            )
        )

    def close(self) -> None:
        """Forget the session key; nothing can be encrypted any more. Idempotent."""
        self._keys.close()
