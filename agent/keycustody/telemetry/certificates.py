"""When certificates and revocation lists end, read now and then and beside the loop."""

import asyncio
import contextlib
from collections.abc import Sequence

from keycustody.config import TlsSettings
from keycustody.custody.identity.certificates import Expiry, expiries
from keycustody.errors import KeycustodyError

_SECONDS = 60.0


class Certificates:
    """What the files of `[tls]` held when they were last read."""

    def __init__(self, tls: TlsSettings | None) -> None:
        self._tls = tls
        self.expiries: Sequence[Expiry] = ()

    async def run(self) -> None:
        """Read them again each minute, until cancelled. Files that cannot be read change nothing:
        the listener says so, and goes on with what it has."""
        while self._tls is not None:
            with contextlib.suppress(KeycustodyError):
                self.expiries = await asyncio.to_thread(expiries, self._tls)
            await asyncio.sleep(_SECONDS)
