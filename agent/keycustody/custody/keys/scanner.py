"""Scans the token at intervals and keeps the newest good catalogue.

An agent whose last good scan is older than three intervals stops serving: what it knows of
revocations is too old (docs/adr/0007). A scan that failed is tried again a second later. If it
shows too little then, too, the workers are renewed, and again after three intervals: a module
whose token was taken away may never see that it was put back.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog

from keycustody.config import KeySettings, Settings
from keycustody.custody.keys.catalogue import Catalogue, build, remembered
from keycustody.custody.keys.memory import MemoryFile
from keycustody.errors import (
    InternalError,
    KeycustodyError,
    TokenNotProvisioned,
    TokenUnavailable,
)
from keycustody.token.api import Scan, Token
from keycustody.token.profiles import Profile

#: Intervals without a good scan after which nothing is served.
PATIENCE = 3
#: Seconds after which a scan that failed is tried again.
_AGAIN_SECONDS = 1.0
#: Seconds that one scan may take.
_TIMEOUT = 60.0

_log = structlog.get_logger(__name__)


class Scanner:
    """Knows the newest good catalogue and its age."""

    def __init__(
        self,
        token: Token,
        declared: Mapping[str, KeySettings],
        profile: Profile,
        interval: float,
        memory: MemoryFile | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self._token = token
        self._declared = declared
        self._profile = profile
        self._interval = interval
        self._memory = memory or MemoryFile()
        # That of the changes of keys: a version made "in the future" would not serve.
        self._clock = clock
        self._renew = renew
        self._catalogue = Catalogue({}, None)
        self._taken = float("-inf")
        self._soon = asyncio.Event()

    async def scan(self) -> Catalogue:
        """Scan now. Raises what the token raises, and what `catalogue.build` does."""
        catalogue = await self._look(self._declared)
        self._show(catalogue)
        # After: what was revoked is revoked at once, whether or not the disk has room for it.
        now = self._clock()
        await self._memory.update(lambda memory: remembered(memory, catalogue.keys, now))
        return catalogue

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Callable[[], None]]:
        """Scan for other declared keys, and give what has the scanner go on with them."""
        catalogue = await self._look(new.keys)

        def commit() -> None:
            self._declared, self._interval = new.keys, new.limits.scan_seconds
            self._show(catalogue)

        yield commit

    async def _look(self, declared: Mapping[str, KeySettings]) -> Catalogue:
        return build(
            await self._token.call(Scan(), timeout=_TIMEOUT),
            declared,
            self._profile,
            memory=self._memory.memory,
            now=self._clock(),
            interval=self._interval,
        )

    def _show(self, catalogue: Catalogue) -> None:
        for finding in set(catalogue.findings) - set(self._catalogue.findings):
            _log.warning("token.finding", finding=finding)
        self._catalogue, self._taken = catalogue, time.monotonic()

    async def run(self) -> None:
        """Scan at intervals until cancelled. A failed scan is logged, once an interval."""
        failed: KeycustodyError | None = None
        renewed = said = float("-inf")
        while True:
            pause = self._interval if failed is None else min(_AGAIN_SECONDS, self._interval)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # wait_for may lose a cancellation
                    await self._soon.wait()
            self._soon.clear()
            before, failed = failed, await self._tried()
            now = time.monotonic()
            if failed is None:
                if before is not None:
                    _log.info("token.scan_recovered")
                continue
            if before is None or failed.code != before.code or now - said >= self._interval:
                said = now
                _log.warning("token.scan_failed", code=failed.code, reason=failed.message)
            shows_little = isinstance(failed, TokenNotProvisioned) and before is not None
            if shows_little and now - renewed >= PATIENCE * self._interval:
                renewed = now
                self._renew()

    async def _tried(self) -> KeycustodyError | None:
        """Scan; return why not."""
        try:
            await self.scan()
        except KeycustodyError as error:
            return error
        except Exception:  # noqa: BLE001 - what a token shows must not end the agent
            _log.exception("token.scan_failed", code=InternalError.code)
            return InternalError("The scan failed; the log says how.")
        return None

    def soon(self) -> None:
        """Have the next scan now rather than after the interval: the token was away."""
        self._soon.set()

    def latest(self) -> Catalogue:
        """Return the newest good catalogue, however old."""
        return self._catalogue

    def age(self) -> float:
        """Return the seconds since the newest good scan was taken."""
        return time.monotonic() - self._taken

    @property
    def fresh(self) -> bool:
        """Is the newest good scan new enough to serve by?"""
        return self.age() <= PATIENCE * self._interval

    def current(self) -> Catalogue:
        """Return the newest good catalogue; `TokenUnavailable` if it is too old."""
        if not self.fresh:
            raise TokenUnavailable(
                "The agent could not look at its token lately, so it serves nothing; it resumes by "
                "itself when the token does."
            )
        return self._catalogue
