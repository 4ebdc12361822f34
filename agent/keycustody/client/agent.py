"""The agent as users of the synchronous client see it: `connect` and `Agent`."""

import os
import time
from types import TracebackType

from keycustody.client import channel
from keycustody.client.channel import Route, SocketRoute
from keycustody.client.delivery import Terms
from keycustody.client.flows import Operations
from keycustody.client.handshake import Place
from keycustody.client.known_tokens import Trust, known_token
from keycustody.client.reach import host_and_port, socket_path
from keycustody.client.requests import Requests
from keycustody.client.retry import Timing
from keycustody.client.sync import Connection, Driver
from keycustody.client.tls import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PIN_VARIABLE,
    Tls,
    from_environment,
)
from keycustody.client.tls_reach import TlsReach
from keycustody.errors import InvalidRequest


def connect(
    socket: str | os.PathLike[str] | None = None,
    *,
    timeout: float = channel.DEFAULT_TIMEOUT_SECONDS,
    patience: float = 0.0,
    accept_plain: bool = False,
    delivery_key: Trust | None = None,
    tls: Tls | None = None,
) -> "Agent":
    """Return an `Agent` for a socket: as given, or $KEYCUSTODY_SOCKET, or the default path.

    `tls` says who we are and which agent we accept, over a Unix socket or, with `HOST:PORT` in
    place of a path, over TCP, where it is needed. Without it, $KEYCUSTODY_TLS_CERTIFICATE and its
    like say it, unless a path is given.

    `timeout` is each call's deadline in seconds, with all its repetitions. `patience` is for how
    many of them a call waits for an agent that is away, such as one that is restarted; without it
    that is an error at once (docs/client.md says what is repeated). `accept_plain` lets session
    keys arrive in clear where the token cannot seal them; the agent then sees them. `delivery_key`
    says which token may deliver session keys: its delivery key's fingerprint in hex, its point or
    SubjectPublicKeyInfo, or several of these; or `Remembered(path)`. Any other is refused with
    `TokenNotTrusted`. Nothing is sent yet: whether the agent is there is known at the first call.
    Raises `AgentUnreachable` for too long a path.
    """
    timing = Timing(timeout, patience)
    route = route_to(socket, tls)
    terms = terms_of(route, accept_plain, delivery_key)
    return Agent(Driver(Connection(route), timing), Operations(time.monotonic, terms))


def terms_of(route: Route, accept_plain: bool, delivery_key: Trust | None) -> Terms:
    """What is accepted from the agent at the end of `route`."""
    token = None if delivery_key is None else known_token(delivery_key, route.path)
    return Terms(accept_plain, token)


def route_to(socket: str | os.PathLike[str] | None, tls: Tls | None) -> Route:
    """The way that `connect` takes, by its arguments and the environment."""
    where = host_and_port(socket)
    if tls is None and (socket is None or where is not None):
        tls = from_environment()
    if tls is None:
        if where is not None:
            raise InvalidRequest(
                "Over TCP an agent is reached with mutual TLS alone: give tls, or set "
                f"{CERTIFICATE_VARIABLE}, {KEY_VARIABLE} and {CA_VARIABLE} or {PIN_VARIABLE}."
            )
        return SocketRoute(socket_path(socket))
    place = Place(*where) if where is not None else Place(socket_path(socket))
    return TlsReach(place, tls)


class Agent(Requests):
    """A connection to one agent; `connect` makes one. Thread-safe.

    Also a context manager: leaving it forgets every session key and closes the channel.
    """

    def __init__(self, driver: Driver, operations: Operations) -> None:
        super().__init__(driver.run, operations)
        self._driver = driver

    def __enter__(self) -> "Agent":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._driver.connection.closed else ""
        return f"<keycustody.Agent {self.socket}{state}>"

    @property
    def socket(self) -> str:
        """The socket's absolute path, or host and port."""
        return self._driver.connection.path

    def within(self, timeout: float, *, patience: float = 0.0) -> "Agent":
        """The same agent and connection, with another deadline for each call. Closing one closes
        both."""
        driver = Driver(self._driver.connection, Timing(timeout, patience))
        return Agent(driver, self._operations)

    def close(self) -> None:
        """Forget every session key that was unwrapped and close the channel, which cancels calls of
        other threads. Idempotent; in a forked child it does nothing."""
        if self._driver.connection.here:
            self._operations.close()
            self._driver.connection.close()
