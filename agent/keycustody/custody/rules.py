"""Who may do what: an immutable snapshot of grants, key rules and policy, known by its hash.

The decision is a pure function of the request and the snapshot. Default deny. A request captures
one snapshot and its audit record names the hash; a reload will swap the snapshot.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from keycustody.config import ADMIN, GrantSettings, KeySettings, Limits, Settings
from keycustody.custody.policy import Verdict, judge
from keycustody.errors import PermissionDenied


@dataclass(frozen=True, slots=True)
class Rules:
    """One snapshot."""

    digest: str
    grants: tuple[GrantSettings, ...]
    keys: Mapping[str, KeySettings]
    limits: Limits
    #: What the cryptographic policy says of each key.
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def decide(self, principal: str, operation: str, key: str) -> str:
        """Return the name of the grant that allows it; `PermissionDenied` if none does.

        The answer is the same whether or not the key exists, so that a caller without a grant
        learns nothing about it.
        """
        for number, grant in enumerate(self.grants):
            if grant.allows(principal, operation, key):
                return grant.name or f"grants.{number}"
        raise PermissionDenied(
            f"No grant lets principal {principal!r} use key {key!r} to {operation}; check the name "
            "(`keycustody keys list`), or have the agent's operator add a grant."
        )

    def decide_admin(self, principal: str, operation: str) -> str:
        """Return what lets the operators' principal administer; `PermissionDenied` for others."""
        if principal == ADMIN:
            return ADMIN
        raise PermissionDenied(
            f"{operation} is for operators: use the socket of principal {ADMIN!r}."
        )

    def visible(self, principal: str) -> tuple[str, ...]:
        """Return the declared keys that the principal may read, sorted."""
        return tuple(
            sorted(
                key
                for key in self.keys
                if any(grant.allows(principal, "read", key) for grant in self.grants)
            )
        )


def rules_of(settings: Settings) -> Rules:
    """Return the snapshot of these settings."""
    document = settings.model_dump_json(include={"principals", "keys", "grants", "limits"})
    policy = settings.crypto
    if policy is not None:
        document += policy.model_dump_json()
    digest = hashlib.sha256(document.encode()).hexdigest()
    verdicts = judge(settings.keys, policy)
    return Rules(digest, settings.grants, settings.keys, settings.limits, verdicts)
