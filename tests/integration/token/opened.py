"""A pool on a test's token, driven from ordinary test functions."""

import asyncio
import contextlib
import hashlib
import itertools
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from keycustody.token.api import CreateVersion, KeyRef, Reply, Request
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool
from tests.softhsm import SoftHsmToken

Value = TypeVar("Value")
_NAMES = itertools.count(1)


@dataclass(frozen=True)
class Made:
    """A key version that was made, its name, and its public key (DER)."""

    ref: KeyRef
    name: str
    public_key: bytes


class OpenedPool:
    """A started pool; its loop runs only inside these methods."""

    def __init__(self, runner: asyncio.Runner, pool: Pool, token: SoftHsmToken) -> None:
        self._runner = runner
        self.pool = pool
        self.token = token

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run something on the pool's loop."""
        return self._runner.run(work)

    def call(self, request: Request[Reply], timeout: float = 60.0) -> Reply:
        """Have one request done."""
        return self.run(self.pool.call(request, timeout=timeout))

    def everywhere(self, request: Request[Reply]) -> list[Reply | BaseException]:
        """Have one request done by every worker: one alone would go to the first that is idle."""

        async def flood() -> list[Reply | BaseException]:
            calls = (self.pool.call(request, timeout=60.0) for _ in range(4 * self.pool.wanted))
            return await asyncio.gather(*calls, return_exceptions=True)

        return self.run(flood())

    def make(self, purpose: str, algorithm: str, label: str | None = None) -> Made:
        """Make a key version, of a new name unless a label is given."""
        name = f"key{next(_NAMES)}" if label is None else label.rpartition(".v")[0]
        label, id_ = label or f"{name}.v1", secrets.token_bytes(16)
        public = self.call(CreateVersion(label, id_, purpose, algorithm)).public_key
        pinned = hashlib.sha256(public).digest() if public else b""
        return Made(KeyRef(label, id_, purpose, algorithm, pinned), name, public)

    def pause(self, seconds: float) -> None:
        """Let the pool work for a while."""
        self.run(asyncio.sleep(seconds))

    def until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        """Let the pool work until something is so."""

        async def wait() -> None:
            end = time.monotonic() + seconds
            while not reached():
                assert time.monotonic() < end, "it did not come to that in time"
                await asyncio.sleep(0.01)

        self.run(wait())


@contextlib.contextmanager
def opened(token: SoftHsmToken, **settings: Any) -> Iterator[OpenedPool]:
    """Open a pool with all its workers ready; close it at the end."""
    pool = Pool(token.settings(**settings), lambda: token.user_pin, PinGuard(token.state))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pool.start())
        open_pool = OpenedPool(runner, pool, token)
        try:
            open_pool.until(lambda: pool.ready == pool.wanted)
            yield open_pool
        finally:
            runner.run(pool.close())
