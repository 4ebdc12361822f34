"""Settings: one TOML file, strict and frozen. `load` reads it."""

from keycustody.config.file import load, read
from keycustody.config.policy import Policy
from keycustody.config.settings import (
    ADMIN,
    PURPOSE_OF,
    SOCKET_PATH_BYTES,
    AgentSettings,
    AuditSettings,
    BudgetSettings,
    GrantSettings,
    KeySettings,
    LeaseSettings,
    Limits,
    MetricsSettings,
    PinSource,
    PrincipalSettings,
    RateSettings,
    Settings,
    TlsSettings,
    TokenSettings,
)

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
