"""keycustody with asyncio: `connect()` gives an `AsyncAgent`; docs/client.md has its tour."""

from keycustody.client.aio_agent import AsyncAgent, connect
from keycustody.client.aio_session import AsyncSession

__all__ = ["AsyncAgent", "AsyncSession", "connect"]
