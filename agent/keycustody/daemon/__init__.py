"""Composition root: wires everything, for the daemon and for offline commands alike.

Each function takes `Settings` and blocks until done. All of them hold the state folder, so that an
agent and a command, or two agents, never work on one journal, and all of them leave audit records.
`prompt` asks a person for a PIN; None means that there is no terminal. They raise errors of
`keycustody.errors` only.
"""

from keycustody.daemon.audit_heads import audit_key
from keycustody.daemon.change_pin import change_pin
from keycustody.daemon.offline import change_keys, clear_pin_guard, initialise_token
from keycustody.daemon.serving import serve
from keycustody.daemon.wiring import Prompt

__all__ = [
    "Prompt",
    "audit_key",
    "change_keys",
    "change_pin",
    "clear_pin_guard",
    "initialise_token",
    "serve",
]
