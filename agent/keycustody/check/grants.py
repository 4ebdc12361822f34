"""Grants: too wide, without effect, or undone by another one."""

from collections.abc import Iterator
from itertools import combinations, product

from keycustody.algorithms import Purpose
from keycustody.check.subject import Subject
from keycustody.config import BudgetSettings, GrantSettings, Settings
from keycustody.config.findings import Finding

#: Principal, operation, key.
_Right = tuple[str, str, str]
_SESSION_KEYS = frozenset({"generate", "unwrap", "rewrap"})


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the grants."""
    settings = subject.settings
    rights = [_rights(grant, settings) for grant in settings.grants]
    free = [not _restricted(grant) for grant in settings.grants]
    for number, grant in enumerate(settings.grants):
        where = f"grants.{number}"
        if _everybody(grant, settings):
            reason = "every principal may use every key; name the keys that each one needs."
            yield subject.finding(f"{where}.keys", "grant-everybody", reason)
        if grant.not_after is not None and grant.not_after <= subject.now:
            reason = f"it ended at {grant.not_after.isoformat()} and allows nothing; remove it."
            yield subject.finding(f"{where}.not_after", "grant-expired", reason)
        if free[number]:
            earlier = set[_Right]().union(*(rights[n] for n in range(number) if free[n]))
            if rights[number] and rights[number] <= earlier:
                reason = "the grants before it allow all of it already; remove one of them."
                yield subject.finding(where, "grant-shadowed", reason)
        else:
            yield from _undone(subject, number, rights, free)
        yield from _budgets(subject, where, grant.budgets)
        yield from policed(subject, number)


def policed(subject: Subject, number: int) -> Iterator[Finding]:
    """Yield what the policy requires of a grant on session keys, for keys that are not excepted."""
    for rule, key in unmet(subject.settings, number):
        if not any(
            (exception.key, exception.rule) == (key, rule)
            and exception.expires >= subject.now.date()
            for exception in (subject.settings.crypto.exceptions if subject.settings.crypto else ())
        ):
            member = rule.removeprefix("grant-")
            reason = f"the policy requires a {member} of each grant on session keys of {key!r}."
            path = f"grants.{number}.{'budgets' if member == 'budget' else member}"
            yield subject.finding(path, rule, reason)


def unmet(settings: Settings, number: int) -> Iterator[tuple[str, str]]:
    """Yield rule and key for what the policy requires of a grant and it does not have."""
    grant, policy = settings.grants[number], settings.crypto
    if policy is None or policy.wrap is None:
        return
    operations = set(grant.operations)
    for name, key in settings.keys.items():
        if key.purpose is not Purpose.WRAP or not grant.covers(name):
            continue
        if policy.wrap.require_context and operations & _SESSION_KEYS and not grant.context:
            yield "grant-context", name
        if policy.wrap.require_budget and "unwrap" in operations and not grant.budgets:
            yield "grant-budget", name


def _rights(grant: GrantSettings, settings: Settings) -> set[_Right]:
    keys = [key for key in settings.keys if grant.covers(key)]
    return set(product(grant.principals, grant.operations, keys))


def _restricted(grant: GrantSettings) -> bool:
    return bool(grant.context or grant.rate or grant.budgets or grant.not_before or grant.not_after)


def _everybody(grant: GrantSettings, settings: Settings) -> bool:
    return (
        "*" in grant.keys
        and set(grant.operations) != {"read"}
        and set(grant.principals) >= settings.principals.keys()
    )


def _undone(
    subject: Subject, number: int, rights: list[set[_Right]], free: list[bool]
) -> Iterator[Finding]:
    """A condition is worth nothing where another grant allows the same without it."""
    for other, theirs in enumerate(rights):
        shared = sorted(right for right in rights[number] & theirs if right[1] != "read")
        if free[other] and shared:
            principal, operation, key = shared[0]
            reason = (
                f"grants.{other} lets {principal!r} {operation} with {key!r} without its "
                "conditions; take that out of one of them."
            )
            yield subject.finding(f"grants.{number}", "grant-undone", reason)


def _budgets(
    subject: Subject, where: str, budgets: tuple[BudgetSettings, ...]
) -> Iterator[Finding]:
    for (one, a), (two, b) in combinations(enumerate(budgets), 2):
        for loose, x, y in ((one, a, b), (two, b, a)):
            if x.session_keys >= y.session_keys and x.seconds <= y.seconds and x != y:
                reason = (
                    f"{y.session_keys} session keys in {y.seconds} s is always the tighter budget; "
                    "remove this one, or make it smaller."
                )
                yield subject.finding(f"{where}.budgets.{loose}", "budget-void", reason)
