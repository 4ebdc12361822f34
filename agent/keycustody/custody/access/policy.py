"""What the cryptographic policy says of each key: a pure function of keys, policy and date.

`judge` works out once, for a snapshot of rules, everything that can be known of a key without its
versions; a request then compares only dates. An *objection* is a broken rule. A dated exception in
the policy silences it through its last day (UTC), so that it comes back by itself.

Rules that refuse `every use` say what is not permitted at all. The others refuse what protects
something new (sign, agree, generate): what exists stays readable, so that a policy grown stricter
locks nobody out of their data. Without a policy, only the algorithms' own statuses speak.

A version's age is what its state record says. A token without data objects has none, and there the
longest lifetime cannot be held.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import structlog

from keycustody.algorithms import DECRYPTIONS, KEYS, SIGNATURES, Purpose, Status
from keycustody.config import KeySettings
from keycustody.config.findings import RULES, Refuses
from keycustody.config.policy import DecryptPolicy, Policy, PurposePolicy, SignPolicy
from keycustody.errors import PolicyViolation

_log = structlog.get_logger(__name__)

#: What protects something new. `rewrap` wraps under a version that may `generate`.
NEW_USES = frozenset({"sign", "agree", "generate"})
_NO_USE = "read"


@dataclass(frozen=True, slots=True)
class Objection:
    """A rule that a key breaks: which member of its settings, why, and until when that is excepted
    (the last day; None: it is not)."""

    rule: str
    member: str
    reason: str
    until: date | None = None

    def stands(self, today: date) -> bool:
        """Does it count on that day?"""
        return self.until is None or today > self.until


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of one key."""

    key: str
    objections: tuple[Objection, ...] = ()
    #: Of the algorithms that a request may name for its purpose, those that it should not.
    requests: Mapping[str, Objection] = field(default_factory=dict)
    lifetime_days: int | None = None
    lifetime_until: date | None = None

    def check_request(self, operation: str, algorithm: str, now: datetime) -> None:
        """Raise `PolicyViolation` if the key may not be used so, whichever version it is."""
        if operation == _NO_USE:
            return
        for objection in self.objections:
            if _refuses(objection, operation) and objection.stands(now.date()):
                raise _violation(self.key, objection)
        named = self.requests.get(algorithm)
        if named is not None and named.stands(now.date()):
            raise _violation(self.key, named)

    def check_creation(self, now: datetime) -> None:
        """Raise `PolicyViolation` if a version made now could not protect anything new."""
        for objection in self.objections:
            if _refuses(objection, "generate") and objection.stands(now.date()):
                raise _violation(self.key, objection)

    def check_version(self, now: datetime, operation: str, number: int, created: str) -> None:
        """Raise `PolicyViolation` if a version made then is too old for that."""
        if operation in NEW_USES and (old := self.aged(number, created, now)) is not None:
            raise _violation(self.key, old)

    def aged(self, number: int, created: str, now: datetime) -> Objection | None:
        """Return the objection to a version that was made then, if it is beyond its lifetime."""
        if self.lifetime_days is None or not created:
            return None
        age = now - datetime.fromisoformat(created)
        if age <= timedelta(days=self.lifetime_days):
            return None
        objection = Objection(
            "lifetime",
            f"v{number}",
            f"version {number} is {age.days} days old, and the policy permits "
            f"{self.lifetime_days}; rotate the key",
            self.lifetime_until,
        )
        return objection if objection.stands(now.date()) else None

    def standing(self, today: date) -> Iterator[Objection]:
        """Yield what is wrong with the key's settings on that day, without its versions."""
        yield from (objection for objection in self.objections if objection.stands(today))

    def describe(self, now: datetime) -> tuple[str, ...]:
        """Return a sentence for each thing that an operator should know of the key."""
        told = tuple(
            f"keys.{self.key}.{objection.member}: {objection.reason} [{objection.rule}]"
            + ("" if objection.stands(now.date()) else f", excepted through {objection.until}")
            for objection in self.objections
        )
        return told or (f"keys.{self.key}: the policy has no objection",)


def findings(verdicts: Mapping[str, Verdict], now: datetime) -> list[str]:
    """Return a line for each rule that is broken today, for status and log."""
    return [
        f"keys.{name}.{objection.member}: {objection.reason} [{objection.rule}]."
        for name, verdict in verdicts.items()
        for objection in verdict.standing(now.date())
    ]


def log_findings(verdicts: Mapping[str, Verdict], now: datetime) -> None:
    """Tell the log what is broken today; an agent does when it starts, and at each reload."""
    for finding in findings(verdicts, now):
        _log.warning("policy.finding", finding=finding)


def judge(keys: Mapping[str, KeySettings], policy: Policy | None) -> dict[str, Verdict]:
    """Return the verdict on each declared key."""
    return {name: _verdict(name, key, policy) for name, key in keys.items()}


def _verdict(name: str, key: KeySettings, policy: Policy | None) -> Verdict:
    table = policy.of(key.purpose) if policy else None
    until = {
        exception.rule: exception.expires
        for exception in (policy.exceptions if policy else ())
        if exception.key == name
    }

    def objection(rule: str, member: str, reason: str) -> Objection:
        return Objection(rule, member, reason, until.get(rule) if RULES[rule].exceptions else None)

    found = [*_of_status(key, policy)]
    if policy is not None:
        found += _of_policy(key, policy, table)
        found += _of_promises(key, policy, table)
    requests = {
        algorithm: objection(*why)
        for algorithm, why in _requests(key.purpose, policy, table).items()
    }
    return Verdict(
        name,
        tuple(objection(*one) for one in found),
        requests,
        table.lifetime_days if table else None,
        until.get("lifetime"),
    )


#: Rule, member, reason.
_Found = tuple[str, str, str]


def _of_status(key: KeySettings, policy: Policy | None) -> Iterator[_Found]:
    status = KEYS[key.algorithm].status
    if not status.protects:
        yield (
            "algorithm-legacy",
            "algorithm",
            f"{key.algorithm} is {status.value}: it only verifies, decrypts and unwraps",
        )
    elif _below(status, policy):
        reason = f"{key.algorithm} is {status.value}, and the policy asks for preferred algorithms"
        yield "algorithm-status", "algorithm", reason


def _of_policy(key: KeySettings, policy: Policy, table: PurposePolicy | None) -> Iterator[_Found]:
    """What the agent refuses."""
    if table is None:
        yield "purpose", "purpose", f"the policy permits no {key.purpose.value} keys"
        return
    if key.algorithm not in table.keys:
        yield (
            "key-algorithm",
            "algorithm",
            _not_permitted(key.algorithm, key.purpose, table.keys),
        )
    if isinstance(table, SignPolicy) and key.prehashed and not table.prehashed:
        yield "prehashed", "prehashed", "the policy does not permit keys that take digests"
    if (
        policy.wrap
        and key.purpose is Purpose.WRAP
        and key.lease.seconds > policy.wrap.lease_seconds
    ):
        permitted, seconds = policy.wrap.lease_seconds, key.lease.seconds
        reason = f"the policy permits {permitted} seconds, and this is {seconds}"
        yield "lease", "lease.seconds", reason


def _of_promises(key: KeySettings, policy: Policy, table: PurposePolicy | None) -> Iterator[_Found]:
    """What somebody has to mend, and the agent only tells."""
    if policy.require_owner and not key.owner.strip():
        yield "owner", "owner", "the policy requires that somebody answers for the key; say who"
    if policy.require_rotation and key.rotation_days is None:
        yield "rotation", "rotation_days", "the policy requires a rotation period; say how long"
    if table and key.rotation_days is not None and key.rotation_days > table.lifetime_days:
        period, permitted = key.rotation_days, table.lifetime_days
        reason = f"a version would serve for {period} days, and the policy permits {permitted}"
        yield "rotation", "rotation_days", reason


def _requests(
    purpose: Purpose, policy: Policy | None, table: PurposePolicy | None
) -> dict[str, _Found]:
    """Which algorithms of requests are not for a key of that purpose, and why."""
    refused: dict[str, _Found] = {}
    if purpose is Purpose.SIGN:
        for entry in SIGNATURES.values():
            if not entry.status.protects:
                reason = f"{entry.name} is {entry.status.value} and signs nothing"
                refused[entry.name] = ("algorithm-legacy", "algorithms", reason)
            elif _below(entry.status, policy):
                reason = f"{entry.name} is {entry.status.value}, and the policy asks for preferred"
                refused[entry.name] = ("algorithm-status", "algorithms", reason)
    if isinstance(table, SignPolicy | DecryptPolicy):
        known = SIGNATURES if isinstance(table, SignPolicy) else DECRYPTIONS
        for name in known.keys() - set(table.algorithms) - refused.keys():
            reason = _not_permitted(name, purpose, table.algorithms)
            refused[name] = ("request-algorithm", "algorithms", reason)
    return refused


def _below(status: Status, policy: Policy | None) -> bool:
    least = Status(policy.minimum_status) if policy else Status.ACCEPTABLE
    return least is Status.PREFERRED and status is not Status.PREFERRED


def _not_permitted(name: str, purpose: Purpose, permitted: Sequence[str]) -> str:
    instead = f"only {', '.join(permitted)}" if permitted else "and nothing else either"
    return f"the policy does not permit {name} for {purpose.value}, {instead}"


def _refuses(objection: Objection, operation: str) -> bool:
    match RULES[objection.rule].refuses:
        case Refuses.ALL:
            return True
        case Refuses.NEW:
            return operation in NEW_USES
        case _:
            return False


def _violation(key: str, objection: Objection) -> PolicyViolation:
    return PolicyViolation(f"Key {key!r}: {objection.reason} [{objection.rule}].")
