"""Settings: one TOML file, strict and frozen. `load` reads it."""

from keycustody.config.fields import ADMIN, PURPOSE_OF
from keycustody.config.file import load, read
from keycustody.config.grants import (
    BudgetSettings,
    GrantSettings,
    PrincipalSettings,
    RateSettings,
)
from keycustody.config.keys import KeySettings, LeaseSettings
from keycustody.config.operation import AuditSettings, Limits, MetricsSettings, TlsSettings
from keycustody.config.policy import Policy
from keycustody.config.settings import SOCKET_PATH_BYTES, Settings
from keycustody.config.token import AgentSettings, PinSource, TokenSettings

__all__ = [
    "ADMIN",
    "PURPOSE_OF",
    "SOCKET_PATH_BYTES",
    "AgentSettings",
    "AuditSettings",
    "BudgetSettings",
    "GrantSettings",
    "KeySettings",
    "LeaseSettings",
    "Limits",
    "MetricsSettings",
    "PinSource",
    "Policy",
    "PrincipalSettings",
    "RateSettings",
    "Settings",
    "TlsSettings",
    "TokenSettings",
    "load",
    "read",
]
