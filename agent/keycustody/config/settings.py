"""The whole settings file: strict, frozen, and without a secret: PINs are named by where they are.

Its sections are in the modules beside this one. Each limit has its unit in its name and its reason
in its description; docs/configuration.md is made from the same fields.
"""

from functools import cached_property
from pathlib import Path

from pydantic import Field, PrivateAttr

from keycustody.config.fields import ADMIN, Name, PathSetting, Section
from keycustody.config.grants import GrantSettings, PrincipalSettings
from keycustody.config.keys import KeySettings
from keycustody.config.operation import AuditSettings, Limits, MetricsSettings, TlsSettings
from keycustody.config.policy import Policy
from keycustody.config.token import AgentSettings, TokenSettings

#: Linux's sun_path is 108 bytes with its terminating zero (unix(7)).
SOCKET_PATH_BYTES = 107
SOCKET_NAME = "agent.sock"


class Settings(Section):
    """The whole file."""

    agent: AgentSettings
    token: TokenSettings
    principals: dict[Name, PrincipalSettings] = Field(default_factory=dict)
    keys: dict[Name, KeySettings] = Field(default_factory=dict)
    grants: tuple[GrantSettings, ...] = ()
    limits: Limits = Field(default_factory=Limits)
    policy: PathSetting | None = Field(
        None, description="The cryptographic policy (docs/policy.md), a TOML file of its own."
    )
    audit: AuditSettings = Field(default_factory=AuditSettings)
    tls: TlsSettings | None = None
    metrics: MetricsSettings | None = None

    #: What the file that `policy` names says; `load` reads it.
    _crypto: Policy | None = PrivateAttr(None)

    @property
    def crypto(self) -> Policy | None:
        """The cryptographic policy, if the settings name one."""
        return self._crypto

    def with_policy(self, policy: Policy | None) -> "Settings":
        """Return the same settings under a policy."""
        changed = self.model_copy()
        changed._crypto = policy
        return changed

    @cached_property
    def socket_names(self) -> tuple[str, ...]:
        """Every principal that gets a socket, the operators' first."""
        return (ADMIN, *(name for name, who in self.principals.items() if who.socket))

    def socket_path(self, principal: str) -> Path:
        """Where that principal's socket is."""
        return self.agent.run_dir / principal / SOCKET_NAME
