"""The client: base dependencies only, and nothing of the agent's.

`calls` and `flows` say what is asked and what an answer means, and do no I/O; `sync` drives them
over a channel. `keys` are pyca-shaped private keys, `session` encrypts, `leases` holds session keys
for as long as the agent allows, `envelope_files` does files, `agent` is what users hold. An asyncio
driver joins beside `sync`, and stands on the same flows.
"""

from keycustody.client.agent import Agent, connect
from keycustody.client.envelopes import ANY
from keycustody.client.known_tokens import Remembered
from keycustody.client.session import Session
from keycustody.client.tls import Tls

__all__ = ["ANY", "Agent", "Remembered", "Session", "Tls", "connect"]
