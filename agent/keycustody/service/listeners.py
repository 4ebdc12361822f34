"""One gRPC server and one socket for each principal, each socket in a directory of its own; and one
server for all addresses with mutual TLS.

For a principal's own socket, the kernel's permissions on the directory are the authentication: gRPC
cannot see Unix peer credentials (docs/adr/0009). Elsewhere it is the caller's certificate, and
there is no port without it. A second bind would silently steal a live socket, so each socket has a
lock that is taken first and held for life.
"""

import grp
import math
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from keycustody.config import PrincipalSettings
from keycustody.custody.state_folder import lock, prepare
from keycustody.errors import InsecurePermissions, SocketUnusable
from keycustody.service.dispatch import Gate, service_handler
from keycustody.service.guard import Guard

#: Calls of one connection; a client has the next ones wait on its own side.
_STREAMS = 1000
#: A connection of whoever is gone without a word is found and closed within both together.
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 30_000, 10_000
#: A client may ask as often whether we are there.
_LEAST_PING_MS = 5_000
#: A connection without a call is closed; its client makes another when it needs one.
_IDLE_MS = 30 * 60_000
#: And so is every one of this age, when its calls are over: the next passes the socket's
#: permissions, or the handshake, as they are then.
_AGE_MS = 60 * 60_000

#: Tells a listener's health checks whether the agent can serve.
SetServing = Callable[[bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that is served."""

    path: Path
    set_serving: SetServing

    def open_to(self, principal: PrincipalSettings) -> None:
        """Let in the principal's group from now on, if it has one, and nobody else. Whoever is
        connected stays. Raises `SocketUnusable`."""
        _open_to(self.path, principal)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener lets in, and how it ends."""

    request_bytes: int
    connections: int
    #: Calls that gRPC has received and not handed to us yet. It refuses more without a word of
    #: ours, so this has to be more than what we refuse, with a code and when to try again.
    unseen: int
    deadline_seconds: float
    #: Seconds that calls under way get when it is closed.
    grace: Callable[[], float]


@asynccontextmanager
async def listener(
    path: Path,
    principal: PrincipalSettings,
    gate: Gate,
    services: Mapping[ServiceDescriptor, object],
    bounds: Bounds,
) -> AsyncIterator[Listener]:
    """Serve on the socket for the length of the block.

    Raises `SocketUnusable` if it cannot be bound, `StateLocked` if another agent serves it.
    """
    server, set_serving = _server(gate, services, bounds)
    _make_folder(path.parent)
    with lock(path.parent / "lock", f"Another agent serves the socket {path}"):
        _bind(server, path)
        # Before anybody else is let in: a server that never started cannot be stopped either.
        await server.start()
        try:
            _open_to(path, principal)
            yield Listener(path, set_serving)
        finally:
            await server.stop(bounds.grace())  # removes the socket, too
            path.parent.chmod(0o700)


@asynccontextmanager
async def tls_listener(
    addresses: Sequence[str],
    credentials: Callable[[], grpc.ServerCredentials],
    gate: Gate,
    services: Mapping[ServiceDescriptor, object],
    bounds: Bounds,
) -> AsyncIterator[SetServing]:
    """Serve with TLS on every address for the length of the block; gives what sets its health.

    An address is HOST:PORT, or `unix:` and a path; each has credentials of its own, since these
    remember what they gave. Raises as `listener` does.
    """
    ours = {service.full_name for service in services}
    server, set_serving = _server(gate, services, bounds, [Guard(gate, ours)])
    with ExitStack() as locks:
        for address in addresses:
            kind, _, path = address.partition(":")
            if kind == "unix":
                locks.enter_context(_open_socket(Path(path), server, credentials()))
            else:
                _listen(server, address, credentials())
        await server.start()
        try:
            yield set_serving
        finally:
            await server.stop(bounds.grace())


@contextmanager
def _open_socket(
    path: Path, server: grpc.aio.Server, credentials: grpc.ServerCredentials
) -> Iterator[None]:
    """Bind a socket that everybody may connect to, since the certificate says who it is."""
    try:
        prepare(path.parent, mode=0o755)
    except InsecurePermissions as error:
        # Whoever may write there could put a socket of their own in its place.
        raise SocketUnusable(error.message) from error
    with lock(path.with_name(f"{path.name}.lock"), f"Another agent serves the socket {path}"):
        _listen(server, f"unix:{quote(str(path))}", credentials)
        path.chmod(0o666)
        yield


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> None:
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SocketUnusable(
            f"The agent cannot listen on {address}; is it in use, or not of this machine?"
        ) from error


def _server(
    gate: Gate,
    services: Mapping[ServiceDescriptor, object],
    bounds: Bounds,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, SetServing]:
    """Return a server of these services, and what sets its health. It listens nowhere yet."""
    server = grpc.aio.server(
        interceptors=interceptors,
        options=_options(bounds),
    )
    server.add_generic_rpc_handlers(
        [service_handler(service, handlers, gate) for service, handlers in services.items()]
    )
    # Health and reflection are found by name, as ours are: gRPC's loop would wait for each method
    # that is registered, again for every call.
    server.add_registered_method_handlers = lambda *_: None  # type: ignore[method-assign]
    names = [service.full_name for service in services]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )

    async def set_serving(serving: bool) -> None:
        code = health_pb2.HealthCheckResponse
        for name in ("", *names):
            await checks.set(name, code.SERVING if serving else code.NOT_SERVING)

    return server, set_serving


def _options(bounds: Bounds) -> list[tuple[str, int]]:
    grace_ms = math.ceil((bounds.deadline_seconds + 10) * 1000)
    return [
        ("grpc.max_receive_message_length", bounds.request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_allowed_incoming_connections", bounds.connections),
        ("grpc.server.max_pending_requests", bounds.unseen),
        ("grpc.server.max_pending_requests_hard_limit", bounds.unseen),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.max_connection_age_ms", _AGE_MS),
        ("grpc.max_connection_age_grace_ms", grace_ms),
    ]


def _make_folder(folder: Path) -> None:
    """Make the socket's folder, closed to all but the agent's user until it is bound."""
    try:
        # Whoever may write to run_dir could put a folder of their own in a socket's place.
        prepare(folder.parent, mode=0o755)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SocketUnusable(f"{folder} is not a folder of the agent's own user; remove it.")
        folder.chmod(0o700)
    except OSError as error:
        raise SocketUnusable(f"The folder {folder} cannot be made: {error.strerror}.") from error


def _bind(server: grpc.aio.Server, path: Path) -> None:
    try:
        # gRPC reads an address as a URI.
        server.add_insecure_port(f"unix:{quote(str(path))}")
    except RuntimeError as error:
        raise SocketUnusable(f"The socket {path} cannot be bound.") from error


def _open_to(path: Path, principal: PrincipalSettings) -> None:
    """Let in the principal's group, if it has one."""
    try:
        path.parent.chmod(0o700)
        path.chmod(0o600 if principal.group is None else 0o660)
        if principal.group is not None:
            group = grp.getgrnam(principal.group).gr_gid
            os.chown(path, -1, group)
            os.chown(path.parent, -1, group)
            path.parent.chmod(0o710)
    except (KeyError, ValueError) as error:  # ValueError: a zero byte, which no name holds
        raise SocketUnusable(f"There is no group {principal.group!r} on this machine.") from error
    except OSError as error:
        raise SocketUnusable(
            f"The socket {path} cannot be given to group {principal.group!r}: {error.strerror}."
        ) from error
