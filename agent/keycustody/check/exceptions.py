"""The policy's exceptions: over, about to end, without an end, or not needed."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from keycustody.check import grants, keys
from keycustody.check.subject import Subject
from keycustody.config import Policy
from keycustody.config.findings import Finding


def check(
    file: str, policy: Policy, under: Sequence[Subject], now: datetime, warn_days: int
) -> Iterator[Finding]:
    """Yield what is wrong with the exceptions of a policy; `under` are the settings that name it,
    without which nobody can tell whether an exception is needed."""
    today = now.date()
    needed = {need for subject in under for need in _needs(subject)}
    for number, one in enumerate(policy.exceptions):
        where = f"exceptions.{number}"
        if one.expires < today:
            reason = f"it ended on {one.expires}; mend {one.key!r}, or have it approved anew."
            yield Finding(file, f"{where}.expires", "exception-expired", reason)
        elif one.expires - today <= timedelta(days=warn_days):
            reason = f"its last day is {one.expires}; then {one.key!r} must obey {one.rule} again."
            yield Finding(file, f"{where}.expires", "exception-expiring", reason)
        elif one.expires - today > timedelta(days=policy.longest_exception_days):
            reason = (
                f"it ends on {one.expires}, more than {policy.longest_exception_days} days off."
            )
            yield Finding(file, f"{where}.expires", "exception-too-long", reason)
        if under and (one.key, one.rule) not in needed:
            reason = f"no settings checked here need rule {one.rule} excepted for {one.key!r}."
            yield Finding(file, where, "exception-unused", reason)


def _needs(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, objection in keys.objections(subject.settings):
        yield name, objection.rule
    for number in range(len(subject.settings.grants)):
        yield from ((key, rule) for rule, key in grants.unmet(subject.settings, number))
    # Only the token knows how old a version is.
    yield from ((name, "lifetime") for name in subject.settings.keys)
