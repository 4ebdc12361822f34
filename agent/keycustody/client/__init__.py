"""The client: base dependencies only, and nothing of the agent's.

`calls` and `flows` say what is asked and what an answer means, and do no I/O; `sync` and
`aio_driver` drive them over a channel. `retry` says what is sent again. `keys` are pyca-shaped
private keys, `session` encrypts, `leases` holds session keys for as long as the agent allows,
`envelope_files` does files. `agent` is what users hold, and `aio_agent` with asyncio.
"""

from keycustody.client.agent import Agent, connect
from keycustody.client.envelopes import ANY
from keycustody.client.known_tokens import Remembered
from keycustody.client.session import Session
from keycustody.client.tls import Tls

__all__ = ["ANY", "Agent", "Remembered", "Session", "Tls", "connect"]
