"""Prints the tables of docs/policy.md from the code, so that they cannot drift.

python -m tests.unit.check.policy_document
"""

import sys
from collections.abc import Iterator

from pydantic import BaseModel

from keycustody.algorithms import DECRYPTIONS, KEYS, SIGNATURES, Status
from keycustody.config import policy
from keycustody.config.findings import RULES
from tests.unit.config.configuration_document import table

MODELS: tuple[type[BaseModel], ...] = (
    policy.Policy,
    policy.PurposePolicy,
    policy.SignPolicy,
    policy.DecryptPolicy,
    policy.WrapPolicy,
    policy.ExceptionPolicy,
)


def members() -> Iterator[str]:
    """Yield a table for each part of the policy file, without what it shares with the others."""
    for model in MODELS:
        shared = [f"| `{name}` " for name in policy.PurposePolicy.model_fields]
        if not issubclass(model, policy.PurposePolicy) or model is policy.PurposePolicy:
            shared = []
        yield "\n".join(row for row in table(model) if not row.startswith(tuple(shared)))


def rules() -> str:
    """Return the table of rules."""
    rows = ["| rule | severity | the agent refuses | exceptions | what is wrong |"]
    rows.append("| --- | --- | --- | --- | --- |")
    for rule in RULES.values():
        exceptions = "yes" if rule.exceptions else "no"
        cells = (f"`{rule.id}`", rule.severity, rule.refuses, exceptions, rule.meaning)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def statuses() -> str:
    """Return the table of algorithms."""
    rows = ["| status | keys | requests may name |", "| --- | --- | --- |"]
    requests = {name: entry.status for name, entry in SIGNATURES.items()}
    requests |= {name: entry.status for name, entry in DECRYPTIONS.items()}
    for status in Status:
        keys = ", ".join(f"`{name}`" for name, e in KEYS.items() if e.status is status)
        named = ", ".join(f"`{name}`" for name, found in requests.items() if found is status)
        rows.append(f"| {status} | {keys or 'none'} | {named or 'none'} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write("\n\n".join([*members(), rules(), statuses()]) + "\n")
