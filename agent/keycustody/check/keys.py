"""Keys: what the policy says of each, and whether anybody may use it."""

from collections.abc import Iterator

from keycustody.check.subject import Subject
from keycustody.config import KeySettings, Settings
from keycustody.config.findings import Finding
from keycustody.custody.access.policy import Objection, judge
from keycustody.custody.keys.key import algorithms_of
from keycustody.token import profiles


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the keys today."""
    today = subject.now.date()
    for name, objection in objections(subject.settings):
        if objection.stands(today):
            path = f"keys.{name}.{objection.member}"
            yield subject.finding(path, objection.rule, f"{objection.reason}.")
    for name in subject.settings.keys:
        if not any(grant.covers(name) for grant in subject.settings.grants):
            yield subject.finding(f"keys.{name}", "key-unused", "no grant lets anybody use it.")


def objections(settings: Settings) -> Iterator[tuple[str, Objection]]:
    """Yield every broken rule with its key's name, excepted ones too."""
    profile = profiles.load(settings.token.profile)
    for name, verdict in judge(settings.keys, settings.crypto).items():
        yield from ((name, objection) for objection in verdict.objections)
        declared: KeySettings = settings.keys[name]
        named = [a for a in algorithms_of(declared, profile) if a in verdict.requests]
        for rule in dict.fromkeys(verdict.requests[algorithm].rule for algorithm in named):
            told = [a for a in named if verdict.requests[a].rule == rule]
            first = verdict.requests[told[0]]
            reason = f"requests may name {', '.join(told)}, but {first.reason}"
            yield name, Objection(rule, first.member, reason, first.until)
