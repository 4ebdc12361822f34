"""The supervisor's end of a child process: starting it, and talking to it from asyncio.

A child gets two descriptors, the environment that is configured and little else: no inherited
variables, no arguments that are secret, no standard input or output (stderr stays the agent's).
"""

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keycustody
from keycustody.token.api import AnyReply
from keycustody.token.child import LEDGER
from keycustody.token.frames import FrameDecoder

#: How long a child may take to end after its pipe was closed, before it is killed (it may be inside
#: the module, and no longer matters); and then, before it is left to the kernel.
_GRACE_SECONDS = 2.0


class Pipe(asyncio.Protocol):
    """Frames to and from one child. Calls `received` for each reply and `lost` once, at the end."""

    def __init__(self, received: Callable[[AnyReply], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._frames: FrameDecoder[AnyReply] = FrameDecoder(AnyReply)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came from the child. What is no reply ends the pipe: it cannot be trusted."""
        try:
            for reply in self._frames.feed(data):
                self._received(reply)
        except ValueError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._lost()

    def send(self, frame: bytes) -> None:
        """Send an encoded frame. Backpressure is the caller's few frames in flight."""
        self._transport.write(frame)

    def close(self) -> None:
        """Close this end, which is what ends the child."""
        self._transport.abort()


class Child:
    """A child process and its pipe."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: Pipe, ledger: mmap.mmap) -> None:
        self._process = process
        self._pipe = pipe
        self._ledger = ledger

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended: an exit status, or minus the number of a signal; None if that is not known
        yet."""
        return self._process.returncode

    @property
    def ledger(self) -> tuple[int, int, int]:
        """How many requests it has begun, how many objects it has made, and how many bytes of
        memory it occupies; also when it is gone."""
        begun, made, memory = LEDGER.unpack_from(self._ledger)
        return begun, made, memory

    @property
    def stopped(self) -> bool:
        """Has somebody stopped it (SIGSTOP), so that it works for nobody? Asked of the kernel as
        its parent: /proc may be hidden from us (ProtectProc= in systemd.exec(5))."""
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    def send(self, frame: bytes) -> None:
        """Send an encoded frame."""
        self._pipe.send(frame)

    def kill(self) -> None:
        """End it now. Its end of the pipe is closed when it is gone, and `lost` called then."""
        # Not by `Process.kill`: that looks whether it ended, and takes the status from the watcher.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Close this end only: it does not even die."""
        self._pipe.close()

    async def end(self) -> None:
        """Close the pipe and wait until the process is gone, killing it if it will not go."""
        self._pipe.close()
        for end_it in (self.kill, lambda: None):
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._process.wait()
                return
            except TimeoutError:
                end_it()


async def start(
    module: str,
    environment: Mapping[str, str],
    received: Callable[[AnyReply], None],
    lost: Callable[[], None],
) -> Child:
    """Start `python -m MODULE FD LEDGER_FD`. Raises `OSError`."""
    ours, theirs = socket.socketpair()
    with theirs, _shared() as (ledger_fd, ledger):
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(lambda: Pipe(received, lost), sock=ours)
        options, checkout = _import_path()
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                *options,
                "-m",
                module,
                str(theirs.fileno()),
                str(ledger_fd),
                pass_fds=(theirs.fileno(), ledger_fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **checkout, **environment},
            )
        )
        try:
            process = await asyncio.shield(starting)
        except BaseException:
            pipe.close()
            # Cancelled, perhaps with a process that has just begun, and that nobody else knows.
            with contextlib.suppress(OSError):
                unwanted = await starting
                with contextlib.suppress(ProcessLookupError):
                    unwanted.kill()
                await unwanted.wait()
            raise
    return Child(process, pipe, ledger)


@contextlib.contextmanager
def _shared() -> Iterator[tuple[int, mmap.mmap]]:
    """Memory to share with a child: its descriptor, closed at the end, and the memory itself."""
    descriptor = os.memfd_create("ledger")
    try:
        os.ftruncate(descriptor, LEDGER.size)
        yield descriptor, mmap.mmap(descriptor, LEDGER.size)
    finally:
        os.close(descriptor)


def _import_path() -> tuple[list[str], dict[str, str]]:
    """Let the child import the package as this process did, and from nowhere else.

    An installed package, editable or not, is found in isolated mode. A checkout that this process
    found through PYTHONPATH is named to the child; the folder that the agent was started in never
    is, where a file named like a module could be waiting.
    """
    root = str(Path(keycustody.__path__[0]).parent)
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root in (str(Path(folder).absolute()) for folder in named if folder):
        return ["-P", "-s"], {"PYTHONPATH": root}
    return ["-I"], {}
