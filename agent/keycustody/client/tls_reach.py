"""Whether the agent behind mutual TLS can be reached, and is the one we know.

As `reach.Reach` for a plain socket: `holds` is asked before each call, and costs a stat(2) of each
file; when something changed, `look` shakes hands by itself (`handshake`), for a new channel.
So a certificate that is renewed is used from the next call on, and calls under way go on.
"""

from pathlib import Path
from typing import Final

import grpc

from keycustody.client import channel
from keycustody.client.channel import C_co, Opens
from keycustody.client.handshake import Place, look, pinned
from keycustody.client.reach import Reach
from keycustody.client.tls import Material, Tls, material

#: What an agent's certificate is for on a Unix socket, where nobody named a host.
LOCAL_NAME: Final = "localhost"
#: A peer that is gone without a word is found out within both together while a call is under way,
#: before the default deadline; the kernel alone would take a quarter of an hour. The agent allows a
#: ping every five seconds.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 6_000, 3_500


class TlsReach:
    """The agent at one place, as one `Tls` has it. Thread-safe under the driver's lock."""

    def __init__(self, place: Place, tls: Tls) -> None:
        self.path = str(place)
        self._place = place
        self._tls = tls
        self._socket = None if place.port else Reach(place.host)
        self._good: tuple[object, ...] | None = None
        self._material: Material | None = None

    def holds(self) -> bool:
        """Whether agent and files are still those that were found good."""
        return (
            self._good is not None
            and self._good == self._found()
            and (self._socket is None or self._socket.holds())
        )

    def look(self, timeout: float) -> None:
        """Look at all of it anew.

        Raises `AgentUnreachable`, `AgentNotTrusted`, `Unauthenticated`, `CertificateUnusable`.
        """
        self._good = None
        found = self._found()
        if self._socket is not None:
            self._socket.look()
        seen = None
        if self._tls.fingerprint is not None:
            seen = pinned(self._place, self._tls, timeout)
        host = self._place.host if self._place.port else LOCAL_NAME
        self._material = material(self._tls, host, seen)
        look(self._place, self._tls, self._material, timeout)
        self._good = found

    def lost(self) -> None:
        """A connection broke: look closely before the next call."""
        self._good = None

    def channel(self, opens: Opens[C_co]) -> C_co:
        """Return a channel by what `look` found good."""
        if self._material is None:
            raise AssertionError("looked at before")
        credentials = grpc.ssl_channel_credentials(
            self._material.roots, self._material.key, self._material.certificate
        )
        options = [
            *channel.OPTIONS,
            ("grpc.ssl_target_name_override", self._material.name),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            # Without this gRPC waits a minute for pings that it sent to measure the network.
            ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ]
        # With its scheme, since a host may be called as one of gRPC's.
        where = f"dns:///{self._place}" if self._place.port else channel.target(self._place.host)
        return opens.secure_channel(where, credentials, options=options)

    def _found(self) -> tuple[object, ...]:
        return tuple(_identity(path) for path in self._tls.files)


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
