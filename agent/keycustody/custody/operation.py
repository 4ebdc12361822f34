"""One request: who asks, the decision, and the record, tied together.

`Desk` is what every use case works with. `Desk.operation` is the only way to get from a request to
the token: its block decides and acts, and leaving it, in whatever way, writes the audit record
before anything is answered. An answer whose record cannot be written is never given. `Entry.call`
asks the token, and does so only after a decision that allows it.
"""

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from keycustody.config import Limits, Settings
from keycustody.custody.access.counters import Charge, Counters, succeeded
from keycustody.custody.access.grants import Ask
from keycustody.custody.access.policy import Verdict, log_findings
from keycustody.custody.access.rules import Rules, rules_of
from keycustody.custody.audit import DENIALS, draft
from keycustody.custody.clock import Clock
from keycustody.custody.keys.catalogue import Catalogue
from keycustody.custody.keys.key import Key
from keycustody.custody.turns import Turns
from keycustody.errors import (
    Cancelled,
    InternalError,
    InvalidContext,
    InvalidRequest,
    KeycustodyError,
)
from keycustody.formats import context as contexts
from keycustody.formats.audit import AuditRecord, Head
from keycustody.formats.names import check_key_name
from keycustody.token.api import Fault, Reply, Request, Token

OK = "OK"
#: No context, and what else has no pairs.
NOTHING: Mapping[str, str] = MappingProxyType({})
#: Characters of a name that was asked for, in a record: none that exists is longer.
_SHOWN = 64
#: Characters of the reason of a denial.
_EXPLAINED = 512


class Caller(Struct, frozen=True):
    """Who asks, how that is known, the request's id, and when the answer must be there."""

    principal: str
    via: str
    request: str
    deadline: float  # time.monotonic()

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.deadline - time.monotonic())


class AuditLog(Protocol):
    """Where records become durable."""

    @property
    def head(self) -> Head:
        """The last durable record."""
        ...

    def append(self, record: AuditRecord, *, under_way: int = 0) -> Awaitable[None]:
        """Begin to write one record: durable when awaited, unless that raises
        `AuditUnavailable`. `under_way`: how many requests are, this one included; 0 if it is none
        of them."""
        ...


class Observer(Protocol):
    """Who counts requests."""

    def answered(self, entry: "Entry") -> None:
        """Take note of a request that is over. Called in its way, so it must be quick."""
        ...


class Catalogued(Protocol):
    """Where the newest good catalogue is."""

    def current(self) -> Catalogue:
        """Return it; `TokenUnavailable` if the last good scan is too long ago."""
        ...


@dataclass(slots=True)
class Traffic:
    """How many requests are under way."""

    requests: int = 0


@dataclass(slots=True)
class Entry:
    """One request, and what its record will say, as far as it is known. An async context manager:
    when the block is left, in whatever way, the record is written."""

    desk: "Desk"
    caller: Caller
    operation: str
    key: str
    algorithm: str
    context: Mapping[str, str]
    version: int = 0
    items: Sequence[str] = ()
    grant: str = ""
    result: str = OK
    detail: str = ""
    charge: Charge | None = None
    #: How each item ended.
    codes: Sequence[str] = ()
    started: int = field(default_factory=time.perf_counter_ns)
    _asked: float = 0.0
    _told: float = 0.0
    _ahead: tuple[str, Sequence[str], Awaitable[None]] | None = None

    async def __aenter__(self) -> "Entry":
        self.desk.traffic.requests += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if raised is not None:
            self._failed(raised)
        desk, answered = self.desk, False
        try:
            await self.close()
            answered = self.result == OK
        except KeycustodyError as error:
            self.result = error.code
            raise
        finally:
            desk.traffic.requests -= 1
            if self.charge is not None:
                self.charge.settle(succeeded(self.items) if answered else (), desk.clock.now())
            if desk.observer is not None:
                desk.observer.answered(self)

    def _failed(self, raised: BaseException) -> None:
        if isinstance(raised, KeycustodyError):
            self.result = raised.code
            if isinstance(raised, DENIALS) and not self.detail:
                self.detail = raised.message
        else:
            cancelled = isinstance(raised, asyncio.CancelledError)
            self.result = (Cancelled if cancelled else InternalError).code

    async def call(self, request: Request[Reply]) -> Reply:
        """Have the token do something by the caller's deadline, when its principal's turn comes."""
        if not self.grant:
            raise InternalError("The token is asked for nothing that no grant allows.")
        asked = time.perf_counter()
        caller, turns = self.caller, self.desk.turns
        try:
            if not turns.take_at_once(caller.principal):
                await turns.take(caller.principal, caller.remaining())
            try:
                return await self.desk.token.call(request, timeout=caller.remaining())
            finally:
                turns.give(caller.principal)
        finally:
            # Parts of a batch are asked for at once: from the first question to the last answer.
            self._asked = min(self._asked or asked, asked)
            self._told = time.perf_counter()

    @property
    def waited(self) -> float:
        """Seconds that the request waited for the token."""
        return self._told - self._asked

    @property
    def seconds(self) -> float:
        """Seconds since it came."""
        return (time.perf_counter_ns() - self.started) / 1e9

    async def announce(self, detail: str) -> None:
        """Write a record of its own, durable on return, of what is about to be done."""
        await self.desk.audit.append(replace(self._record(), detail=detail))

    def note_items(self, inputs: Sequence[bytes], results: Sequence[object]) -> None:
        """Note each item's digest and what became of it; again, if more of them failed since."""
        codes = [result.code if isinstance(result, Fault) else OK for result in results]
        if codes != self.codes:
            self.codes = codes
            self.items = [
                f"{hashlib.sha256(data).hexdigest()}:{code}"
                for data, code in zip(inputs, codes, strict=True)
            ]

    def write_ahead(self) -> None:
        """Begin to write the record now, while the token works, as if that will succeed.

        For what fails only if the token does. If the outcome is another, `close` adds a second
        record that says so (docs/format.md, 8).
        """
        self._ahead = self.result, self.items, self._append()

    async def close(self) -> None:
        """Make the record durable. Raises `AuditUnavailable`."""
        if self._ahead is not None:
            result, items, written = self._ahead
            await written
            if (result, items) == (self.result, self.items):
                return
        await self._append()

    def _append(self) -> Awaitable[None]:
        return self.desk.audit.append(self._record(), under_way=self.desk.traffic.requests)

    def _record(self) -> AuditRecord:
        return draft(
            request=self.caller.request,
            principal=self.caller.principal,
            via=self.caller.via,
            operation=self.operation,
            rules=self.desk.rules.digest,
            key=self.key[:_SHOWN],
            version=self.version,
            algorithm=self.algorithm[:_SHOWN],
            context=self.context,
            items=self.items,
            grant=self.grant,
            result=self.result,
            detail=self.detail[:_EXPLAINED],
            microseconds=(time.perf_counter_ns() - self.started) // 1000,
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """What use cases work with. `rules` is captured once for each request."""

    rules: Rules
    catalogue: Catalogued
    token: Token
    audit: AuditLog
    clock: Clock
    counters: Counters
    #: At the token: a batch is many requests to it, and none of them may hold up another principal.
    turns: Turns
    plain_delivery: bool = False
    traffic: Traffic = field(default_factory=Traffic)
    observer: Observer | None = None

    def operation(
        self,
        caller: Caller,
        operation: str,
        *,
        key: str = "",
        algorithm: str = "",
        context: Mapping[str, str] = NOTHING,
    ) -> Entry:
        """Begin a request: enter what this returns, decide, and act."""
        shown = _recordable(context) if context else NOTHING
        return Entry(self, caller, operation, key, algorithm, shown)

    def admit(
        self, caller: Caller, entry: Entry, *, count: int = 1, wrapped: Sequence[bytes] = ()
    ) -> Key:
        """Decide, and return the key, held to the cryptographic policy. The decision comes before
        any look at the key, so that a caller without a grant learns nothing about it.

        `count` operations are counted, and as session keys, should they be unwrapped, `wrapped`.
        """
        check_key_name(entry.key)
        rules, who, now = self.rules, caller.principal, self.clock.now()
        keys = (
            frozenset(hashlib.sha256(one).digest() for one in wrapped)
            if wrapped and rules.budgeted(who)
            else frozenset()
        )
        ask = Ask(who, entry.operation, entry.key, entry.context, max(1, count), keys)
        decision = rules.decide(ask, self.counters, now)
        if decision.grant is None:
            entry.detail = decision.explanation()
            raise decision.error()
        entry.charge = self.counters.reserve(decision.grant, ask, now)
        entry.grant = decision.grant.name
        key = self.catalogue.current().key(entry.key)
        verdict = rules.verdicts.get(entry.key)
        if verdict is None:
            return key
        return held(key, verdict, entry, datetime.fromtimestamp(now, UTC))

    def check_count(self, count: int) -> None:
        """Refuse a request without items, or with too many."""
        limit = self.rules.limits.items
        if not 1 <= count <= limit:
            raise InvalidRequest(f"A request holds 1 to {limit} items, this one {count}.")


@dataclass(slots=True)
class Office:
    """Holds the desk in force. A reload puts another in its place; a request takes it once."""

    desk: Desk

    def limits(self) -> Limits:
        """Return the limits in force."""
        return self.desk.rules.limits

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Callable[[], None]]:
        """Get a desk with the rules of new settings ready; give what puts it in place."""
        desk = dataclasses.replace(self.desk, rules=rules_of(new))

        def commit() -> None:
            self.desk = desk
            desk.counters.follow(desk.rules.grants)
            log_findings(desk.rules.verdicts, desk.clock.utc())

        yield commit


def held(key: Key, verdict: Verdict, entry: Entry, now: datetime) -> Key:
    """Return the key if the policy permits the request, with what it says of old versions."""
    verdict.check_request(entry.operation, entry.algorithm, now)
    if verdict.lifetime_days is None:
        return key
    return replace(key, check_age=partial(verdict.check_version, now))


def _recordable(context: Mapping[str, str]) -> dict[str, str]:
    """Return a context for the record: sorted, and left out if it is over the limits, since such a
    request is refused and its record must stay small."""
    try:
        contexts.encode(context)
    except InvalidContext:
        return {}
    return dict(sorted(context.items()))
