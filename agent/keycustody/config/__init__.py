"""Settings: one TOML file, strict and frozen. `load` reads it."""

from keycustody.config.file import load
from keycustody.config.settings import (
    ADMIN,
    PURPOSE_OF,
    SOCKET_PATH_BYTES,
    AgentSettings,
    GrantSettings,
    KeySettings,
    LeaseSettings,
    Limits,
    PinSource,
    PrincipalSettings,
    Settings,
    TokenSettings,
)

__all__ = [
    "ADMIN",
    "PURPOSE_OF",
    "SOCKET_PATH_BYTES",
    "AgentSettings",
    "GrantSettings",
    "KeySettings",
    "LeaseSettings",
    "Limits",
    "PinSource",
    "PrincipalSettings",
    "Settings",
    "TokenSettings",
    "load",
]
