"""Who may do what: an immutable snapshot of grants, key rules and policy, known by its hash.

The decision is a pure function of the request, the snapshot, the counters and the time. Default
deny: the first grant that allows everything about the request wins, and if there is none, the
decision says of each grant that names the principal what failed. A request captures one snapshot
and its audit record names the hash; a reload swaps the snapshot.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from msgspec import Struct

from keycustody.config import ADMIN, GrantSettings, KeySettings, Limits, Settings
from keycustody.custody.access.grants import (
    Ask,
    Condition,
    Counts,
    Grant,
    Refusal,
    Uncounted,
    grant_of,
)
from keycustody.custody.access.policy import Verdict, judge
from keycustody.errors import BudgetExceeded, KeycustodyError, PermissionDenied, RateExceeded

#: Characters of an explanation that a record has room for.
_EXPLAINED = 1000
_USED_UP = (Condition.RATE, Condition.BUDGET)
#: A grant, and how many come before it.
_Placed = tuple[int, Grant]
_place = itemgetter(0)


class Decision(Struct, frozen=True):
    """The outcome: the grant that allows it, or None, and why others did not that would but for
    what was used up."""

    ask: Ask
    grant: Grant | None
    spent: Sequence[Refusal]
    _naming: Sequence[Grant]
    _counts: Counts
    _now: float

    @property
    def refusals(self) -> Iterator[tuple[Grant, Refusal]]:
        """Yield each grant before the one that allows it that names the principal, and why it does
        not. Worked out here: there may be many, and hardly anybody asks."""
        for grant in self._naming:
            if grant is self.grant:
                return
            refusal = grant.refusal(self.ask, self._counts, self._now)
            if refusal is not None:
                yield grant, refusal

    def explanation(self) -> str:
        """Say why nothing allows it, for the audit record and operators: not for the caller."""
        told = ""
        for grant, why in self.refusals:
            told += f"{'; ' if told else ''}grant {grant.name}: {why.reason}"
            if len(told) > _EXPLAINED:
                break
        return (told or "no grant names the principal")[:_EXPLAINED]

    def error(self) -> KeycustodyError:
        """Return what the caller learns.

        The answer is the same whether or not the key exists, and whatever grants there are, so that
        a caller without a grant learns nothing. Only somebody whose request a grant would allow but
        for its counters is told that, and when to try again.
        """
        if self.spent:
            return _spent(min(self.spent, key=lambda why: why.wait))
        return PermissionDenied(
            f"No grant allows principal {self.ask.principal!r} the operation "
            f"{self.ask.operation!r} on key {self.ask.key!r} as asked; check the name (`keycustody "
            "keys list`), or have the agent's operator look (`keycustody explain`)."
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """One snapshot."""

    digest: str
    grants: tuple[Grant, ...]
    keys: Mapping[str, KeySettings]
    limits: Limits
    #: What the cryptographic policy says of each key.
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    _naming: dict[str, list[Grant]] = field(default_factory=dict, init=False)
    #: Each with its place, by principal and key; and those that have patterns, by principal. So a
    #: request costs the same whatever grants there are for other keys.
    _exact: dict[tuple[str, str], list[_Placed]] = field(default_factory=dict, init=False)
    _wide: dict[str, list[_Placed]] = field(default_factory=dict, init=False)
    _budgeted: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        for place, grant in enumerate(self.grants):
            for principal in grant.principals:
                self._naming.setdefault(principal, []).append(grant)
                if grant.budgets:
                    self._budgeted.add(principal)
                if grant.patterns:
                    self._wide.setdefault(principal, []).append((place, grant))
                    continue
                for key in grant.keys:
                    self._exact.setdefault((principal, key), []).append((place, grant))

    def decide(self, ask: Ask, counts: Counts, now: float) -> Decision:
        """Return the decision. Nothing is counted by it."""
        naming = self._naming.get(ask.principal, ())
        spent: list[Refusal] = []
        for _, grant in self._for(ask):
            refusal = grant.refusal(ask, counts, now)
            if refusal is None:
                return Decision(ask, grant, spent, naming, counts, now)
            if refusal.condition in _USED_UP:
                spent.append(refusal)
        return Decision(ask, None, spent, naming, counts, now)

    def _for(self, ask: Ask) -> Iterable[_Placed]:
        """Return the grants that may be for the key, in their order."""
        exact = self._exact.get((ask.principal, ask.key), ())
        wide = self._wide.get(ask.principal, ())
        return sorted((*exact, *wide), key=_place) if exact and wide else exact or wide

    def budgeted(self, principal: str) -> bool:
        """Does any grant count the session keys that the principal unwraps?"""
        return principal in self._budgeted

    def decide_admin(self, principal: str, operation: str) -> str:
        """Return what lets the operators' principal administer; `PermissionDenied` for others."""
        if principal == ADMIN:
            return ADMIN
        raise PermissionDenied(
            f"{operation} is for operators: use the socket of principal {ADMIN!r}."
        )

    def visible(self, principal: str, now: float) -> tuple[str, ...]:
        """Return the declared keys that the principal may read now, sorted. Costs nothing."""
        counts = Uncounted()
        return tuple(
            key
            for key in sorted(self.keys)
            if self.decide(Ask(principal, "read", key), counts, now).grant is not None
        )


def rules_of(settings: Settings) -> Rules:
    """Return the snapshot of these settings."""
    document = settings.model_dump_json(include={"principals", "keys", "grants", "limits"})
    policy = settings.crypto
    if policy is not None:
        document += policy.model_dump_json()
    digest = hashlib.sha256(document.encode()).hexdigest()
    verdicts = judge(settings.keys, policy)
    return Rules(digest, grants_of(settings.grants), settings.keys, settings.limits, verdicts)


def grants_of(settings: tuple[GrantSettings, ...]) -> tuple[Grant, ...]:
    """Return the grants of the settings, in their order."""
    return tuple(grant_of(one, number) for number, one in enumerate(settings))


def _spent(why: Refusal) -> KeycustodyError:
    rate = why.condition is Condition.RATE
    error = RateExceeded if rate else BudgetExceeded
    what = "rate" if rate else "budget of session keys"
    if math.isinf(why.wait):
        return error(
            f"One request asks for more than the grant's {what} ever allows; ask for less."
        )
    seconds = max(1, math.ceil(why.wait))
    return error(f"The grant's {what} is used up; try again in {seconds} s.", retry_after=why.wait)
