"""One grant, made ready to be judged by; and what it is asked.

A grant allows a request if *all* that it says holds. `Grant.refusal` looks in the order of
`Condition` and returns the first that does not. It is a function of the request, the counters and
the time, and changes none of them.
"""

import fnmatch
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from keycustody.config import BudgetSettings, GrantSettings, RateSettings

#: In a required value of a context: who asks.
PRINCIPAL = "{principal}"


class Ask(Struct, frozen=True):
    """What somebody asks: `count` operations at once, which would unwrap `session_keys` (sha256 of
    each distinct wrapped key)."""

    principal: str
    operation: str
    key: str
    context: Mapping[str, str] = {}
    count: int = 1
    session_keys: Collection[bytes] = ()


class Condition(StrEnum):
    """What a grant says, in the order in which it is looked at."""

    PRINCIPAL = "principal"
    KEY = "key"
    OPERATION = "operation"
    CONTEXT = "context"
    NOT_BEFORE = "not_before"
    NOT_AFTER = "not_after"
    RATE = "rate"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The condition that fails, and why; `wait` is how many seconds it does if others do nothing,
    `inf` if this request can never be allowed as it is."""

    condition: Condition
    reason: str
    wait: float = math.inf


class Counts(Protocol):
    """What was used so far."""

    def rate_wait(self, ask: Ask, grant: str, rate: RateSettings, now: float) -> float:
        """Return the seconds until the rate allows it."""
        ...

    def budget_wait(self, ask: Ask, grant: str, budget: BudgetSettings, now: float) -> float:
        """Return the seconds until the budget allows it."""
        ...


class Uncounted:
    """Counts of nothing: what the grants allow before anything was used."""

    def rate_wait(self, ask: Ask, grant: str, rate: RateSettings, now: float) -> float:
        """See `Counts`."""
        return math.inf if ask.count > rate.burst else 0.0

    def budget_wait(self, ask: Ask, grant: str, budget: BudgetSettings, now: float) -> float:
        """See `Counts`."""
        return math.inf if len(ask.session_keys) > budget.session_keys else 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant of the settings."""

    name: str
    principals: frozenset[str]
    operations: frozenset[str]
    keys: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]
    context: tuple[tuple[str, str], ...]
    not_before: float
    not_after: float
    rate: RateSettings | None
    budgets: tuple[BudgetSettings, ...]

    def refusal(self, ask: Ask, counts: Counts, now: float) -> Refusal | None:
        """Return the first condition that does not hold; None if the grant allows the request."""
        if ask.principal not in self.principals:
            return Refusal(Condition.PRINCIPAL, "it is for other principals")
        if ask.key not in self.keys and not any(p.fullmatch(ask.key) for p in self.patterns):
            return Refusal(Condition.KEY, "it is for other keys")
        if ask.operation not in self.operations:
            return Refusal(Condition.OPERATION, "it is for other operations")
        for name, wanted in self.context:
            if ask.context.get(name) != wanted.replace(PRINCIPAL, ask.principal):
                return _wrong_pair(name, wanted, ask)
        return self.untimely(now) or self._used_up(ask, counts, now)

    def untimely(self, now: float) -> Refusal | None:
        """Return why it does not hold at that time."""
        if now < self.not_before:
            return Refusal(Condition.NOT_BEFORE, "it is not valid yet", self.not_before - now)
        if now > self.not_after:
            return Refusal(Condition.NOT_AFTER, "it has expired")
        return None

    def _used_up(self, ask: Ask, counts: Counts, now: float) -> Refusal | None:
        if self.rate and (wait := counts.rate_wait(ask, self.name, self.rate, now)):
            return Refusal(
                Condition.RATE,
                f"its rate of {self.rate.per_second:g} a second, {self.rate.burst} at once, "
                "is used up",
                wait,
            )
        if ask.operation != "unwrap":
            return None
        for budget in self.budgets:
            if wait := counts.budget_wait(ask, self.name, budget, now):
                return Refusal(
                    Condition.BUDGET,
                    f"its budget of {budget.session_keys} session keys in {budget.seconds} s "
                    "is used up",
                    wait,
                )
        return None


def grant_of(settings: GrantSettings, number: int) -> Grant:
    """Return a grant of the settings, named by its number if they give it no name."""
    return Grant(
        settings.name or f"grants.{number}",
        frozenset(settings.principals),
        frozenset(settings.operations),
        frozenset(key for key in settings.keys if "*" not in key),
        tuple(re.compile(fnmatch.translate(key)) for key in settings.keys if "*" in key),
        tuple(sorted(settings.context.items())),
        settings.not_before.timestamp() if settings.not_before else -math.inf,
        settings.not_after.timestamp() if settings.not_after else math.inf,
        settings.rate,
        settings.budgets,
    )


def _wrong_pair(name: str, wanted: str, ask: Ask) -> Refusal:
    wrong = "differs" if name in ask.context else "is missing"
    value = wanted.replace(PRINCIPAL, ask.principal)
    return Refusal(Condition.CONTEXT, f"context {name!r} {wrong}; it must be {value!r}")
