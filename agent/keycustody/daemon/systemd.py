"""What systemd is told: that the agent is ready, reloads, stops, and is alive (sd_notify(3)).

A datagram to the socket that `$NOTIFY_SOCKET` names; without one, nothing. Written out because the
protocol is these few lines: systemd's own library needs its headers and a compiler, and `sdnotify`,
in pure Python, had its last release in 2017.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

import structlog

_log = structlog.get_logger(__name__)


class Notifier:
    """Tells whoever started the agent how it is."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._alive_every = _watchdog_seconds(environment)

    def ready(self) -> None:
        """The agent serves, from now on or again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its settings; `ready` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It takes no new requests, and answers those that it has."""
        self._tell("STOPPING=1")

    async def keep_alive(self, alive: Callable[[], bool]) -> None:
        """Tell the watchdog in time, as long as `alive`, until cancelled. That this runs shows that
        the loop does. A watchdog that is not told ends the agent and starts another."""
        while self._alive_every:
            if alive():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self._alive_every)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
                opened.setblocking(False)
                opened.sendto(state.encode(), self._address)
        except OSError as error:
            _log.warning("systemd.not_told", state=state.partition("=")[0], reason=error.strerror)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """Return the seconds after which to tell the watchdog again, a third of what it waits; 0 if
    there is none, or it is for another process."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(microseconds) / 3e6 if microseconds.isdecimal() else 0.0
