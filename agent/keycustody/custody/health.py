"""Self-tests of keys: each version that may serve shows now and then that it still does.

`Health` is the state and decides without I/O: whose test is due, and who failed the last one.
`Examiner` asks the token, one version at a time, with a pause after each: at the agent's start,
before anything is served, every version; a new one when a scan shows it; every one again at
intervals, and sooner one that failed. `Guarded` is the token as use cases get it: no request that
names a version that failed gets through.

A token that is away, busy or slow is not a key that fails. So a test that fails is believed only if
a scan after it succeeds and still shows that version, and the test then fails again. A version
without a verdict yet may be used, because a worker has each key prove itself when it loads it.
"""

import asyncio
import secrets
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from msgspec import Struct

from keycustody.config import Settings
from keycustody.custody.audit import draft
from keycustody.custody.keys.catalogue import Catalogue
from keycustody.custody.operation import OK, AuditLog
from keycustody.errors import (
    AuditUnavailable,
    DeadlineExceeded,
    InternalError,
    KeycustodyError,
    KeyNotTrusted,
    KeyUnhealthy,
    Overloaded,
)
from keycustody.token.api import KeyRef, Reply, Request, SelfTest, Token

#: Seconds until a version is tested again that failed, or of which nothing could be said.
_SOON = 10.0
#: The longest pause between two tests, in seconds: how late a new version is noticed.
_TICK = 1.0
#: Seconds that one test may take.
_TIMEOUT = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the last test of a version ended; `failure` says why it failed, empty if it passed."""

    failure: str
    taken: float  # time.monotonic()


def serving(catalogue: Catalogue) -> list[KeyRef]:
    """Return every version that may serve callers."""
    return [version.ref for key in catalogue.keys.values() for version in key.servable]


def tested(catalogue: Catalogue) -> list[KeyRef]:
    """Return every version that has to show that it works, the agent's own keys first."""
    own = (catalogue.delivery, catalogue.audit)
    return [version.ref for version in own if version is not None] + serving(catalogue)


class Health:
    """What the last self-test of each version said."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._verdicts: dict[KeyRef, Verdict] = {}
        self._tried: dict[KeyRef, float] = {}
        self._failing: frozenset[KeyRef] = frozenset()

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Callable[[], None]]:
        """Follow other settings."""

        def commit() -> None:
            self.interval = new.limits.self_test_seconds

        yield commit

    def due(self, refs: Collection[KeyRef], now: float) -> KeyRef | None:
        """Return the version whose test is most overdue: one that was never tested first."""
        late = [(self._next(ref), ref.label, ref) for ref in refs]
        late = [entry for entry in late if entry[0] <= now]
        return min(late)[2] if late else None

    def note(self, ref: KeyRef, now: float, failure: str) -> bool:
        """Take a verdict; returns whether the version's fate changed by it."""
        changed = (ref in self._failing) is not bool(failure)
        self._verdicts[ref] = Verdict(failure, now)
        self._tried[ref] = now
        self._failing = frozenset(ref for ref, last in self._verdicts.items() if last.failure)
        return changed

    def note_attempt(self, ref: KeyRef, now: float) -> None:
        """Take note of a test that allows no verdict: what was said before still holds."""
        self._tried[ref] = now

    def keep(self, refs: Iterable[KeyRef]) -> None:
        """Forget all other versions."""
        kept = set(refs)
        self._verdicts = {ref: last for ref, last in self._verdicts.items() if ref in kept}
        self._tried = {ref: when for ref, when in self._tried.items() if ref in kept}
        self._failing &= kept

    def check(self, request: Request[Any]) -> None:
        """Raise `KeyUnhealthy` if a request names, anywhere, a version that failed."""
        if not self._failing:
            return
        for ref in _keys_of(request):
            if ref in self._failing:
                raise KeyUnhealthy(
                    f"Key {ref.label!r} failed its self-test and is not used; the agent tests it "
                    "again and resumes by itself when it passes."
                )

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The last verdicts, by label of the version."""
        return {ref.label: last for ref, last in self._verdicts.items()}

    @property
    def failing(self) -> Mapping[str, str]:
        """Why versions fail, by label."""
        return {ref.label: self._verdicts[ref].failure for ref in self._failing}

    def hopeless(self, refs: Collection[KeyRef]) -> bool:
        """Do all of them fail? False if there are none."""
        return bool(refs) and self._failing.issuperset(refs)

    def _next(self, ref: KeyRef) -> float:
        """Return when the version is to be tested again; long ago if it never was."""
        tried = self._tried.get(ref)
        if tried is None:
            return float("-inf")
        settled = ref in self._verdicts and ref not in self._failing
        return tried + (self.interval if settled else min(self.interval, _SOON))


def _keys_of(value: Struct) -> Iterator[KeyRef]:
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if isinstance(inner, KeyRef):
            yield inner
        elif isinstance(inner, Struct):
            yield from _keys_of(inner)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A token that does nothing with a key that failed its self-test."""

    token: Token
    health: Health

    def call(self, request: Request[Reply], *, timeout: float) -> Coroutine[Any, Any, Reply]:
        """As `keycustody.token.api.Token.call`; raises `KeyUnhealthy`, too."""
        self.health.check(request)
        return self.token.call(request, timeout=timeout)


class Scans(Protocol):
    """Where catalogues come from."""

    def latest(self) -> Catalogue:
        """Return the newest good one."""
        ...

    async def scan(self) -> Catalogue:
        """Look at the token now; raises if that cannot be done or shows too little."""
        ...


class Examiner:
    """Tests versions and records what changes."""

    def __init__(
        self,
        token: Token,
        scans: Scans,
        health: Health,
        audit: AuditLog,
        rules: Callable[[], str],
    ) -> None:
        self._token = token
        self._scans = scans
        self._health = health
        self._audit = audit
        self._rules = rules
        #: What changed and is not in the journal yet: label to reason.
        self._unrecorded: dict[str, str] = {}

    async def round(self) -> None:
        """Test every version once."""
        for ref in tested(self._scans.latest()):
            await self._examine(ref)

    async def run(self) -> None:
        """Test what is due, one at a time, until cancelled."""
        while True:
            refs = tested(self._scans.latest())
            await asyncio.sleep(min(_TICK, self._health.interval / max(1, len(refs))))
            self._health.keep(refs)
            ref = self._health.due(refs, time.monotonic())
            try:
                if ref is not None:
                    await self._examine(ref)
                await self.record_changes()
            except Exception:  # noqa: BLE001 - what a token answers must not end the agent
                _log.exception("key.self_test_broken", code=InternalError.code)

    async def record_changes(self) -> None:
        """Write what changed and could not be written yet."""
        for label, failure in list(self._unrecorded.items()):
            name, _, number = label.rpartition(".v")
            record = draft(
                request=secrets.token_hex(16),
                principal="agent",
                via="agent",
                operation="self-test",
                rules=self._rules(),
                key=name,
                version=int(number),
                result=KeyUnhealthy.code if failure else OK,
                detail=failure or "passed again",
            )
            try:
                await self._audit.append(record)
            except AuditUnavailable:
                return  # said in the log by the journal; requests are refused meanwhile, too
            self._unrecorded.pop(label, None)

    async def _examine(self, ref: KeyRef) -> None:
        try:
            failure = await self._verdict(ref)
        except KeycustodyError as error:
            _log.warning("key.self_test_undecided", key=ref.label, code=error.code)
            self._health.note_attempt(ref, time.monotonic())
            return
        if not self._health.note(ref, time.monotonic(), failure):
            return
        if failure:
            _log.error("key.self_test_failed", key=ref.label, reason=failure)
        else:
            _log.warning("key.self_test_passed_again", key=ref.label)
        self._unrecorded[ref.label] = failure
        await self.record_changes()

    async def _verdict(self, ref: KeyRef) -> str:
        """Return why the version fails, empty if it passes. Raises if that cannot be said."""
        if not await self._failure(ref):
            return ""
        if ref not in tested(await self._scans.scan()):
            raise KeyNotTrusted("The token does not show that version any more.")
        return await self._failure(ref)

    async def _failure(self, ref: KeyRef) -> str:
        try:
            await self._token.call(SelfTest(ref), timeout=_TIMEOUT)
        except (DeadlineExceeded, Overloaded):
            raise
        except KeycustodyError as error:
            return error.message
        return ""
