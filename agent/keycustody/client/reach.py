"""Is the agent's socket there, and may we use it? One clear sentence for each way that it is not.

gRPC's own words never reach a user, and it cannot tell "nobody was there" from "it went away in the
middle". A `Reach` can: `holds` is asked before each call and costs one stat(2); unless the socket
is the one that was found good before, `look` looks closely and tries to connect. What then fails
for lack of a connection had begun: `AGENT_GONE`.
"""

import errno
import os
import re
import socket
import stat
from pathlib import Path
from typing import Final

from keycustody.errors import AgentUnreachable

#: Linux's sun_path is 108 bytes with its terminating zero (unix(7)).
MAX_PATH_BYTES: Final = 107
DEFAULT_SOCKET: Final = "/run/keycustody/default/agent.sock"
SOCKET_VARIABLE: Final = "KEYCUSTODY_SOCKET"

_MAX_PORT: Final = 65_535
_HOST_PORT: Final = re.compile(
    r"(\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)

_Identity = tuple[int, int, int]


def socket_path(given: str | os.PathLike[str] | None) -> str:
    """The absolute socket path: as given, or $KEYCUSTODY_SOCKET, or the default.

    Raises `AgentUnreachable` for a path that no socket can have.
    """
    path = str(Path(given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET).absolute())
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise AgentUnreachable(
            f"The socket path {path} has {length} bytes, and Linux allows {MAX_PATH_BYTES}; "
            "use a shorter one."
        )
    if "\0" in path:
        raise AgentUnreachable("The socket path holds a zero byte; no file has such a name.")
    return path


def host_and_port(given: str | os.PathLike[str] | None) -> tuple[str, int] | None:
    """The host and port that are given, or that $KEYCUSTODY_SOCKET names; None for a path.

    HOST:PORT and [IPV6]:PORT without a slash; a socket of such a name is written ./NAME.
    """
    named = given or os.environ.get(SOCKET_VARIABLE)
    found = _HOST_PORT.fullmatch(named) if isinstance(named, str) else None
    if found is None or not 1 <= int(found["port"]) <= _MAX_PORT:
        return None
    return found["ipv6"] or found["host"], int(found["port"])


def nobody(sentence: str) -> AgentUnreachable:
    """The error for an agent that may be back in a moment."""
    error = AgentUnreachable(sentence)
    error.away = True
    return error


class Reach:
    """Whether the agent behind one socket path can be reached by this process. Thread-safe."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = Path(path)
        self._good: _Identity | None = None

    def holds(self) -> bool:
        """Whether the socket is still the one that was found good."""
        try:
            return self._good is not None and _identity(self._socket.stat()) == self._good
        except OSError:
            return False

    def look(self, timeout: float = 0.0) -> None:
        """Look closely, which never blocks. Raises `AgentUnreachable` unless somebody listens."""
        self._good = None
        try:
            found = _identity(self._socket.stat())
        except OSError as error:
            raise self._unreachable(error) from error
        self._knock()
        self._good = found

    def lost(self) -> None:
        """A connection broke: look closely before the next call."""
        self._good = None

    def _knock(self) -> None:
        try:
            if not stat.S_ISSOCK(self._socket.stat().st_mode):
                raise AgentUnreachable(f"{self.path} is not a socket; name the agent's.")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                # A full backlog would block; it also means that somebody listens.
                probe.setblocking(False)
                probe.connect(self.path)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OSError) -> AgentUnreachable:
        away = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)
        return (nobody if away else AgentUnreachable)(self._sentence(error))

    def _sentence(self, error: OSError) -> str:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                return (
                    f"There is no socket at {self.path}; is the agent running, and is that its "
                    f"path (${SOCKET_VARIABLE}; for operators, $KEYCUSTODY_ADMIN_SOCKET)?"
                )
            case errno.EACCES | errno.EPERM:
                return (
                    f"This user may not use the socket {self.path}; each principal has a socket of "
                    "its own, and the agent's operator says who may use it."
                )
            case errno.ECONNREFUSED:
                return f"Nobody listens on {self.path}; the agent is not running."
            case errno.EPROTOTYPE:
                return f"{self.path} is a socket of another kind; name the agent's."
            case _:
                return f"The socket {self.path} cannot be used: {error.strerror}."


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_ctime_ns
