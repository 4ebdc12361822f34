"""Judging settings files and their policies without a token or a running agent, for a pipeline.

`check` reads each file as the agent would and says all that is wrong: what the agent refuses, what
the policy forbids, and what is only careless. It looks at files that the settings name (PINs,
certificates, the module) where they exist: what is missing here may be there where the agent runs.
It changes nothing, and opens no PIN and no private key.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from keycustody.check import certificates, exceptions, grants, keys, permissions, surroundings
from keycustody.check.subject import Subject
from keycustody.config import Policy, read
from keycustody.config.file import document, read_policy
from keycustody.config.findings import POLICY_INVALID, Finding

__all__ = ["check"]

#: How long before the end of an exception or certificate it is worth a word.
WARN_DAYS = 30

_CHECKS = (
    keys.check,
    grants.check,
    surroundings.check,
    permissions.check,
    certificates.check,
)


def check(paths: Sequence[Path], now: datetime, warn_days: int = WARN_DAYS) -> list[Finding]:
    """Return every finding about these settings files, and policy files among them, once each."""
    found: list[Finding] = []
    policies: dict[Path, Policy] = {}
    subjects: list[Subject] = []
    for path in paths:
        if _is_policy(path):
            policy, invalid = read_policy(path)
            found += invalid
            if policy is not None:
                policies[path.resolve()] = policy
            continue
        settings, invalid = read(path)
        found += (_shown(finding) for finding in invalid)
        if settings is not None:
            subjects.append(Subject(str(path), settings, now, warn_days))
            if settings.policy is not None and settings.crypto is not None:
                policies[settings.policy] = settings.crypto
    found += _each(subjects)
    for path, policy in policies.items():
        under = [one for one in subjects if one.settings.policy == path]
        found += exceptions.check(_relative(path), policy, under, now, warn_days)
    return list(dict.fromkeys(found))


def _each(subjects: Iterable[Subject]) -> Iterator[Finding]:
    for subject in subjects:
        for one in _CHECKS:
            yield from one(subject)


def _is_policy(path: Path) -> bool:
    """Is that a policy and not settings? So that a pipeline can name a whole folder."""
    raw, _ = document(path, POLICY_INVALID)
    members = set(raw or ())
    return bool(members & Policy.model_fields.keys()) and not members & {"agent", "token"}


def _shown(finding: Finding) -> Finding:
    return Finding(_relative(Path(finding.file)), finding.path, finding.rule, finding.message)


def _relative(path: Path) -> str:
    """Return a path as one would type it here."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
