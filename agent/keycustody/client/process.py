"""Which process something belongs to. gRPC's channels, and locks, do not survive a fork."""

import os

from keycustody.errors import AgentUnreachable


class Home:
    """The process that uses something first. A forked child has to ask for its own."""

    __slots__ = ("_process",)

    def __init__(self) -> None:
        self._process: int | None = None

    @property
    def here(self) -> bool:
        """Whether this is that process, or nobody used it yet."""
        return self._process in (None, os.getpid())

    def check(self) -> None:
        """Make it this process's, if it is nobody's. Raises `AgentUnreachable` in another one.

        Takes no lock: another thread may have held it when the process forked.
        """
        process = os.getpid()
        if self._process == process:
            return
        if self._process is not None:
            raise AgentUnreachable(
                "This agent connection was made before a fork and does not work after it; "
                "call connect() in the new process."
            )
        self._process = process
