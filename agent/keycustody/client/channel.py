"""What every driver's channel has in common: its target, its options, what its failures mean.

gRPC itself sends an idempotent call again (`calls.RETRYABLE`) that the agent or the connection
refused, within the call's deadline: after a short pause of its own, or after what the agent says
(grpc-retry-pushback-ms, gRFC A6). `retry` goes on where that ends.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import quote

import grpc

from keycustody import wire
from keycustody.client.calls import RETRYABLE
from keycustody.client.reach import Reach
from keycustody.errors import AgentGone, KeycustodyError

#: One message on the wire, either way. The agent's own limit for requests is lower.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
#: gRPC keeps a request this large until it is answered, to send it again; 256 KiB by itself. What
#: is larger is over the agent's limit, unless that was raised.
_RETRIED_BYTES: Final = 8 * 1024 * 1024

C_co = TypeVar("C_co", covariant=True)

_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{"service": service, "method": method} for service, method in RETRYABLE],
            "retryPolicy": {
                # gRPC has no more than five.
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ]
}

OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 1),
    ("grpc.per_rpc_retry_buffer_size", _RETRIED_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # An agent that is back is found at once; the socket is local, there is nothing to spare.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Two clients of one process do not share a connection, nor its failures.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


def target(path: str) -> str:
    """gRPC's name for a socket path; it decodes percent signs."""
    return "unix:" + quote(path)


class Opens(Protocol[C_co]):
    """Opens channels: the modules `grpc` and `grpc.aio`."""

    def insecure_channel(
        self, target: str, options: Sequence[tuple[str, Any]] | None = None
    ) -> C_co: ...

    def secure_channel(
        self,
        target: str,
        credentials: grpc.ChannelCredentials,
        options: Sequence[tuple[str, Any]] | None = None,
    ) -> C_co: ...


class Route(Protocol):
    """The way to one agent: a socket of ours alone, or TLS."""

    path: str

    def holds(self) -> bool:
        """Whether the agent is as it was when it was looked at. Never blocks."""
        ...

    def look(self, timeout: float) -> None:
        """Look at the agent anew; then a new channel has to be made. Raises what keeps it from
        being reached; what waits for the agent takes `timeout` seconds at most."""
        ...

    def lost(self) -> None:
        """A connection broke: look closely before the next call."""
        ...

    def channel(self, opens: Opens[C_co]) -> C_co:
        """Return a new channel to what was looked at."""
        ...


class SocketRoute(Reach):
    """A Unix socket without TLS: the kernel says who may use it."""

    def channel(self, opens: Opens[C_co]) -> C_co:
        """Return a new channel."""
        return opens.insecure_channel(target(self.path), options=OPTIONS)


def error_of(failed: grpc.RpcError, reach: Route, *, closed: bool) -> KeycustodyError:
    """What a failed call means. `reach` learns of a lost connection; `closed` says that we closed
    it ourselves."""
    call = cast(grpc.Call, failed)
    trailing = [(item[0], item[1]) for item in call.trailing_metadata() or ()]
    code = call.code()
    if code is grpc.StatusCode.CANCELLED and not closed:
        # Not by us: a server that stops does that to calls that it has not begun yet.
        code = grpc.StatusCode.UNAVAILABLE
    error = wire.from_rpc_error(code, call.details() or "", trailing)
    if isinstance(error, AgentGone):
        reach.lost()
    return error
