"""Where Prometheus asks: HTTP/1.1 on a Unix socket or on loopback, for one path and one method.

Rules:

* A connection gets one answer and is closed. Its request must be there within seconds and may be a
  few kilobytes; its answer must be taken within seconds.
* Only so many connections are served at once; more are closed unanswered. One answer is made at a
  time, its text in a thread, so that the loop serves requests meanwhile.
* Nothing of what a peer sends is ever repeated, logged or stored.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import Metric, generate_latest

from keycustody.config import SOCKET_PATH_BYTES, MetricsSettings
from keycustody.custody.state_folder import lock, prepare
from keycustody.errors import SocketUnusable

PATH = b"/metrics"
#: The text format, as every version of Prometheus reads it.
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_CONNECTIONS = 16
_REQUEST_BYTES = 8 * 1024
_REQUEST_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


class Source(Protocol):
    """What is told."""

    def collect(self) -> Iterable[Metric]:
        """Return every metric as it is now; called in the loop, so it must be quick."""
        ...


@asynccontextmanager
async def serving(settings: MetricsSettings, source: Source) -> AsyncIterator[None]:
    """Answer for the length of the block.

    Raises `SocketUnusable` if the socket or address cannot be had, `InsecurePermissions` if others
    may write to the socket's folder, `StateLocked` if another agent answers there.
    """
    endpoint = _Endpoint(source)
    async with contextlib.AsyncExitStack() as stack:
        try:
            if settings.socket is not None:
                server = await _on_socket(endpoint, settings.socket, stack)
            else:
                host, _, port = str(settings.address).rpartition(":")
                server = await asyncio.start_server(
                    endpoint.connected, host.strip("[]"), int(port), limit=_REQUEST_BYTES
                )
        except (OSError, OverflowError) as error:
            where = settings.socket or settings.address
            reason = getattr(error, "strerror", None) or "it is no port"
            raise SocketUnusable(f"Metrics cannot be served on {where}: {reason}.") from error
        try:
            yield
        finally:
            server.close()
            endpoint.close()
            if settings.socket is not None:
                settings.socket.unlink(missing_ok=True)


async def _on_socket(
    endpoint: "_Endpoint", path: Path, stack: contextlib.AsyncExitStack
) -> asyncio.Server:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise SocketUnusable(f"The path {path} is longer than {SOCKET_PATH_BYTES} bytes.")
    # Whoever may write to the folder could put a socket of their own in this one's place.
    prepare(path.parent, mode=0o755)
    stack.enter_context(
        lock(path.with_name(path.name + ".lock"), f"Another agent serves metrics on {path}")
    )
    return await asyncio.start_unix_server(
        endpoint.connected, sock=_bound(path), limit=_REQUEST_BYTES
    )


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.bind(os.fspath(path))
        path.chmod(0o660)  # before it listens, so that nobody can be earlier
    except BaseException:
        opened.close()
        raise
    return opened


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A registry that holds what was collected, for the text to be made elsewhere."""

    metrics: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


class _Endpoint:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._answers: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection, unless too many are being answered."""
        if len(self._answers) >= _CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._answer(reader, writer))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def close(self) -> None:
        """Drop the connections that are open."""
        for task in self._answers:
            task.cancel()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A peer that is slow, gone, or no HTTP at all has only itself to blame.
        with contextlib.suppress(OSError, ValueError, EOFError, asyncio.LimitOverrunError):
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                answer = await self._response(request)
                writer.transport.set_write_buffer_limits(0)  # `drain` then waits for all of it
                async with asyncio.timeout(_ANSWER_SECONDS):
                    writer.write(answer)
                    await writer.drain()
            finally:
                writer.transport.abort()

    async def _response(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            return _head(b"400 Bad Request", b"")
        if target.partition(b"?")[0] != PATH:
            return _head(b"404 Not Found", b"")
        if method != b"GET":
            return _head(b"405 Method Not Allowed", b"", b"Allow: GET\r\n")
        async with self._one:
            snapshot = _Snapshot(list(self._source.collect()))
            text = await asyncio.to_thread(generate_latest, snapshot)
        return _head(b"200 OK", text)


def _head(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n"
        % (status, CONTENT_TYPE, len(body), more)
    ) + body
