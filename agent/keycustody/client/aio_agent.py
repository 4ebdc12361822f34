"""The agent as users of asyncio see it: `connect` and `AsyncAgent`; `keycustody.aio` exports them.

The surface of `keycustody.Agent`, with `await`: the same flows, or the same methods in a thread
where they read and write files or work on large messages. There is no `private_key`, since pyca's
interfaces block: `sign`, `agree` and `rsa_decrypt` take its place.
"""

import os
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import overload

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.client import calls, channel
from keycustody.client.agent import route_to, terms_of
from keycustody.client.aio_driver import AioConnection, AioDriver, Bridge
from keycustody.client.aio_session import INLINE_BYTES, AsyncSession
from keycustody.client.calls import Outcome, Rewrapped, ask
from keycustody.client.envelopes import AnyOr, Bytes, Expectation
from keycustody.client.files import Progress, Source, Target
from keycustody.client.flows import Operations, as_bytes, results_of
from keycustody.client.known_tokens import Trust
from keycustody.client.operators import Changes
from keycustody.client.requests import Requests
from keycustody.client.retry import Timing
from keycustody.client.rewrap_files import FileResult
from keycustody.client.session_keys import opened
from keycustody.client.tls import Tls
from keycustody.client.values import KeyInfo, KeyReport, PublicKey, Reloaded, Status
from keycustody.formats import context as contexts


def connect(
    socket: str | os.PathLike[str] | None = None,
    *,
    timeout: float = channel.DEFAULT_TIMEOUT_SECONDS,
    patience: float = 0.0,
    accept_plain: bool = False,
    delivery_key: Trust | None = None,
    tls: Tls | None = None,
) -> "AsyncAgent":
    """As `keycustody.connect`; the first call decides which event loop it belongs to."""
    timing = Timing(timeout, patience)
    route = route_to(socket, tls)
    terms = terms_of(route, accept_plain, delivery_key)
    return AsyncAgent(AioDriver(AioConnection(route), timing), Operations(time.monotonic, terms))


class AsyncAgent:
    """A connection to one agent, for the tasks of one event loop; `connect` makes one.

    Each method is as that of `keycustody.Agent`. A task that is cancelled takes its call with it.
    Also an asynchronous context manager.
    """

    def __init__(self, driver: AioDriver, operations: Operations) -> None:
        self._driver = driver
        self._run = driver.run
        self._operations = operations

    async def __aenter__(self) -> "AsyncAgent":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = " closed" if self._driver.connection.closed else ""
        return f"<keycustody.aio.AsyncAgent {self.socket}{state}>"

    @property
    def socket(self) -> str:
        """The socket's absolute path, or host and port."""
        return self._driver.connection.path

    def within(self, timeout: float, *, patience: float = 0.0) -> "AsyncAgent":
        """The same agent and connection, with another deadline for each call."""
        driver = AioDriver(self._driver.connection, Timing(timeout, patience))
        return AsyncAgent(driver, self._operations)

    async def close(self) -> None:
        """Forget every session key that was unwrapped and close the channel, which cancels calls of
        other tasks. Idempotent."""
        if self._driver.connection.here:
            self._operations.close()
            await self._driver.connection.close()

    # -- keys --------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyInfo]:
        """The keys that the caller may see, by name."""
        return await self._run(ask(calls.list_keys()))

    async def key(self, name: str) -> KeyInfo:
        """One key: purpose, algorithms, versions."""
        return await self._run(ask(calls.get_key(name)))

    async def public_key(self, name: str, version: int | None = None) -> PublicKey:
        """The public half as a pyca key; `version` None is the newest active one."""
        return (await self.key(name)).version(version).public_key()

    # -- signing, agreement, decryption ------------------------------------------------------------

    @overload
    async def sign(
        self,
        name: str,
        items: Bytes,
        *,
        algorithm: str | None = ...,
        prehashed: bool = ...,
        raw: bool = ...,
        version: int | None = ...,
    ) -> bytes: ...

    @overload
    async def sign(
        self,
        name: str,
        items: Sequence[Bytes],
        *,
        algorithm: str | None = ...,
        prehashed: bool = ...,
        raw: bool = ...,
        version: int | None = ...,
    ) -> list[bytes]: ...

    async def sign(
        self,
        name: str,
        items: Bytes | Sequence[Bytes],
        *,
        algorithm: str | None = None,
        prehashed: bool = False,
        raw: bool = False,
        version: int | None = None,
    ) -> bytes | list[bytes]:
        """Sign one message, or each of many in as few round trips as possible."""
        one = isinstance(items, bytes | bytearray | memoryview)
        many = [items] if isinstance(items, bytes | bytearray | memoryview) else items
        outcomes = await self.sign_each(
            name, many, algorithm=algorithm, prehashed=prehashed, raw=raw, version=version
        )
        results = results_of(outcomes)
        return results[0] if one else results

    async def sign_each(
        self,
        name: str,
        items: Sequence[Bytes],
        *,
        algorithm: str | None = None,
        prehashed: bool = False,
        raw: bool = False,
        version: int | None = None,
    ) -> list[Outcome]:
        """As `sign` of many; a failed item has its error in its place, and does not raise."""
        inputs = [calls.SignInput(as_bytes(item), prehashed) for item in items]
        flow = self._operations.sign(name, inputs, algorithm=algorithm, raw=raw, version=version)
        return await self._run(flow)

    async def sign_file(
        self,
        name: str,
        source: Source,
        *,
        algorithm: str | None = None,
        raw: bool = False,
        version: int | None = None,
    ) -> bytes:
        """Sign a file or pipe, which is read in a thread."""
        return await self._driver.in_thread(
            lambda bridge: self._blocking(bridge).sign_file(
                name, source, algorithm=algorithm, raw=raw, version=version
            )
        )

    async def agree(
        self, name: str, peer_public_key: ec.EllipticCurvePublicKey, *, version: int | None = None
    ) -> bytes:
        """The ECDH shared secret, the x coordinate: derive keys from it, never use it as one."""
        flow = self._operations.agree(name, [peer_public_key], version=version)
        return results_of(await self._run(flow))[0]

    async def rsa_decrypt(
        self,
        name: str,
        ciphertext: Bytes,
        *,
        algorithm: str | None = None,
        version: int | None = None,
    ) -> bytes:
        """Decrypt RSA-OAEP with a key of purpose `decrypt`."""
        flow = self._operations.rsa_decrypt(
            name, [as_bytes(ciphertext)], algorithm=algorithm, version=version
        )
        return results_of(await self._run(flow))[0]

    # -- envelopes ---------------------------------------------------------------------------------

    async def session(self, key: str, *, context: Mapping[str, str] | None = None) -> AsyncSession:
        """Open a session: `async with await agent.session(...) as session`."""
        keys = await self._run(opened(self._operations, key, context or {}))
        return AsyncSession(keys, self._driver)

    async def decrypt(
        self,
        envelope: Bytes,
        *,
        key: str | AnyOr,
        context: Mapping[str, str] | AnyOr,
        associated_data: Bytes = b"",
    ) -> bytes:
        """Open an envelope that is for this key and this context; a large one in a thread."""
        if len(envelope) > INLINE_BYTES:
            return await self._driver.in_thread(
                lambda bridge: self._blocking(bridge).decrypt(
                    envelope, key=key, context=context, associated_data=associated_data
                )
            )
        expected = Expectation.of(key, context)
        opened = self._operations.open_held(envelope, expected, associated_data)
        if opened is not None:
            return opened
        return await self._run(self._operations.open_message(envelope, expected, associated_data))

    async def decrypt_file(
        self,
        source: Source,
        target: Target,
        *,
        key: str | AnyOr,
        context: Mapping[str, str] | AnyOr,
        associated_data: Bytes = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `decrypt`, for a file or pipe, in a thread, in which `progress` is called too. If the
        task is cancelled, a target that is a path is not there."""
        await self._driver.in_thread(
            lambda bridge: self._blocking(bridge).decrypt_file(
                source,
                target,
                key=key,
                context=context,
                associated_data=associated_data,
                progress=bridge.watched(progress),
            )
        )

    async def rewrap(
        self, envelope: Bytes, *, key: str | AnyOr, context: Mapping[str, str] | AnyOr
    ) -> bytes:
        """Return an envelope, or its header alone, moved to the newest version of its key."""
        expected = Expectation.of(key, context)
        return await self._run(self._operations.rewrap_message(envelope, expected))

    async def rewrap_keys(
        self, key: str, version: int, context: Mapping[str, str], wrapped_keys: Sequence[Bytes]
    ) -> Rewrapped:
        """Have wrapped keys of one version and context wrapped under the newest version."""
        wrapped = [as_bytes(one) for one in wrapped_keys]
        encoded = contexts.encode(context)
        return await self._run(self._operations.rewrap(key, version, encoded, wrapped))

    def rewrap_files(
        self,
        paths: Iterable["str | os.PathLike[str]"],
        *,
        keys: Collection[str] | AnyOr,
        dry_run: bool = False,
    ) -> AsyncIterator[FileResult]:
        """Move the envelopes at these paths in place, file after file in threads."""
        bridge = Bridge(self._driver)
        results = self._blocking(bridge).rewrap_files(paths, keys=keys, dry_run=dry_run)
        return self._each(results, bridge)

    # -- operators ---------------------------------------------------------------------------------

    async def status(self) -> Status:
        """How the agent is. It answers on the administrators' socket only."""
        return await self._run(ask(calls.get_status()))

    async def reload(self) -> Reloaded:
        """Have the agent read its settings again; if it refuses them, it goes on as before."""
        return await self._run(ask(calls.reload()))

    @property
    def key_changes(self) -> Changes[Awaitable[KeyReport]]:
        """Changes to the keys on the token; each method is to be awaited."""
        return Changes(self._run)

    async def _each(
        self, results: Iterator[FileResult], bridge: Bridge
    ) -> AsyncIterator[FileResult]:
        def following(_: Bridge) -> FileResult | None:
            return next(results, None)

        while (result := await self._driver.in_thread(following, bridge)) is not None:
            yield result

    def _blocking(self, bridge: Bridge) -> Requests:
        return Requests(bridge.run, self._operations)
