"""What keys there are, for those who may see them, and how the agent is, for its operators."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keycustody.custody.access import policy
from keycustody.custody.audit import Head, Standing
from keycustody.custody.keys.catalogue import Catalogue
from keycustody.custody.keys.key import Key
from keycustody.custody.operation import Caller, Desk, Office
from keycustody.errors import KeycustodyError
from keycustody.token.api import TokenInfo


async def list_keys(desk: Desk, caller: Caller) -> Sequence[Key]:
    """Return the keys that the caller may read, sorted by name."""
    async with desk.operation(caller, "read"):
        catalogue = desk.catalogue.current()
        visible = desk.rules.visible(caller.principal, desk.clock.now())
        return [catalogue.key(name) for name in visible]


async def get_key(desk: Desk, caller: Caller, name: str) -> Key:
    """Return one key. A declared key that cannot be used raises what keeps it from that."""
    async with desk.operation(caller, "read", key=name) as entry:
        key = desk.admit(caller, entry)
        if key.problem is not None:
            raise type(key.problem)(key.problem.message)
        return key


class TokenHealth(Protocol):
    """How the workers are."""

    @property
    def info(self) -> TokenInfo:
        """The token in use."""
        ...

    @property
    def wanted(self) -> int:
        """Workers that there should be."""
        ...

    @property
    def ready(self) -> int:
        """Workers that serve."""
        ...

    @property
    def restarts(self) -> int:
        """Workers started again."""
        ...


class Scans(Protocol):
    """How the scans are."""

    def latest(self) -> Catalogue:
        """The newest good one, however old."""
        ...

    def age(self) -> float:
        """Its age in seconds."""
        ...


class KeyHealth(Protocol):
    """How the self-tests are."""

    @property
    def failing(self) -> Mapping[str, str]:
        """Why versions fail, by label."""
        ...


class SignedHeads(Protocol):
    """How the audit heads are."""

    def standing(self) -> Standing:
        """How far they are."""
        ...

    def verifier_key(self) -> str:
        """What verifies them."""
        ...


@dataclass(frozen=True, slots=True)
class Status:
    """How the agent is. Holds no secret."""

    uptime: float
    token: TokenInfo
    workers_wanted: int
    workers_ready: int
    restarts: int
    scan_age: float
    profile: str
    delivery: str
    delivery_key: str
    keys: Sequence[Key]
    #: Labels of versions that failed their self-test.
    unhealthy: frozenset[str]
    findings: Sequence[str]
    audit: Head
    signed: Standing
    #: What verifies audit heads, as a line; "" if nothing signs them.
    audit_key: str
    rules: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What a status is made of."""

    workers: TokenHealth
    scans: Scans
    health: KeyHealth
    profile: str
    started: float  # time.monotonic()
    heads: SignedHeads
    #: Who has findings besides the last scan, one sentence each.
    concerns: Sequence[Callable[[], Iterable[str]]] = ()

    def findings(self) -> Iterator[str]:
        """Return what they have to say now."""
        for concern in self.concerns:
            yield from concern()


async def status(desk: Desk, caller: Caller, overview: Overview) -> Status:
    """Return how the agent is; only the operators' principal may ask."""
    async with desk.operation(caller, "status") as entry:
        entry.grant = desk.rules.decide_admin(caller.principal, "status")
        catalogue = overview.scans.latest()
        failing = overview.health.failing
        return Status(
            uptime=time.monotonic() - overview.started,
            token=overview.workers.info,
            workers_wanted=overview.workers.wanted,
            workers_ready=overview.workers.ready,
            restarts=overview.workers.restarts,
            scan_age=overview.scans.age(),
            profile=overview.profile,
            delivery=_delivery(desk, catalogue),
            delivery_key=_fingerprint(catalogue),
            keys=[catalogue.keys[name] for name in sorted(catalogue.keys)],
            unhealthy=frozenset(failing),
            findings=[
                *(f"{label}: failed its self-test. {why}" for label, why in failing.items()),
                *catalogue.findings,
                *_policy_findings(desk, catalogue),
                *overview.findings(),
            ],
            audit=desk.audit.head,
            signed=overview.heads.standing(),
            audit_key=overview.heads.verifier_key(),
            rules=desk.rules.digest,
        )


async def reject(office: Office, caller: Caller, method: str, error: KeycustodyError) -> None:
    """Record a request that was refused before it could be understood, and raise its error."""
    async with office.desk.operation(caller, method):
        raise error


def _policy_findings(desk: Desk, catalogue: Catalogue) -> Iterator[str]:
    now = desk.clock.utc()
    yield from policy.findings(desk.rules.verdicts, now)
    for name, verdict in desk.rules.verdicts.items():
        for version in catalogue.keys[name].servable if name in catalogue.keys else ():
            if (old := verdict.aged(version.number, version.created, now)) is not None:
                yield f"{name}.v{version.number}: {old.reason} [{old.rule}]."


def _delivery(desk: Desk, catalogue: Catalogue) -> str:
    if catalogue.delivery is not None:
        return "sealed"
    return "plain" if desk.plain_delivery else "none"


def _fingerprint(catalogue: Catalogue) -> str:
    return "" if catalogue.delivery is None else catalogue.delivery.ref.public_sha256.hex()
