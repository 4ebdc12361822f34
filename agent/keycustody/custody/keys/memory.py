"""What this agent remembers of the versions it has seen, in its own state folder.

The token is the catalogue, but a token can be put back to what it was before. So two things are
kept here: the `CKA_ID` under which a version was served, which no other id ever replaces, and the
worst state that was ever seen of it, which no restored record makes better. Besides, what this
agent has begun to make and has not finished, so that it can clear its own leftovers and nobody
else's.

`Memory` is a value and decides nothing. `MemoryFile` keeps it in <state_dir>/seen.json: replaced as
a whole and synced, by the one process that holds the state folder.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from keycustody.errors import FileUnusable
from keycustody.formats.state import State

_NAME = "seen.json"
_NOT_OURS = (
    "{} is not what this agent wrote, and without it nothing is known of revocations that the "
    "token may have forgotten. Restore it from a backup, or, if you know the token to be current, "
    "remove it."
)


class Seen(Struct, frozen=True, forbid_unknown_fields=True):
    """What is remembered of one version. Times are as in state records; `id` is hex, and empty as
    long as the version never served."""

    first: str
    id: str = ""
    state: State = State.ACTIVE
    since: str = ""
    reason: str = ""


class Memory(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is remembered: versions by label, and by `CKA_ID` the label of each version
    that this agent has begun to make."""

    v: int = 1
    versions: Mapping[str, Seen] = msgspec.field(default_factory=dict)
    making: Mapping[str, str] = msgspec.field(default_factory=dict)

    def noting(self, label: str, seen: Seen) -> "Memory":
        """Return this with what was seen now. An id stays once it is known, and so does the worst
        state, with its time and reason."""
        before = self.versions.get(label)
        if before is not None:
            worse = seen if seen.state.rank > before.state.rank else before
            seen = Seen(
                before.first or seen.first,
                before.id or seen.id,
                worse.state,
                worse.since,
                worse.reason,
            )
        if seen == before:
            return self
        return msgspec.structs.replace(self, versions={**self.versions, label: seen})

    def beginning(self, label: str, id_: bytes) -> "Memory":
        """Return this with a version that is about to be made."""
        return msgspec.structs.replace(self, making={**self.making, id_.hex(): label})

    def ended(self, id_: bytes) -> "Memory":
        """Return this without what was made, or was cleared away."""
        left = {made: label for made, label in self.making.items() if made != id_.hex()}
        return self if len(left) == len(self.making) else msgspec.structs.replace(self, making=left)


class MemoryFile:
    """Keeps a memory on disk; `memory` is what it holds now. Without a folder it keeps nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        """Read what was kept. Raises `FileUnusable`."""
        self._path = None if folder is None else folder / _NAME
        self._lock = asyncio.Lock()
        self._kept = self.memory = Memory() if self._path is None else _load(self._path)

    async def update(self, change: Callable[[Memory], Memory]) -> None:
        """Change the memory, and make it durable if that changed anything.

        Raises `FileUnusable` if it cannot be written; it then counts all the same as long as this
        process lives, and the next update writes it.
        """
        async with self._lock:
            self.memory = change(self.memory)
            if self.memory != self._kept and self._path is not None:
                await asyncio.to_thread(_save, self._path, self.memory)
            self._kept = self.memory

    def forget(self) -> None:
        """Forget everything: the token was initialised, and holds nothing of what it held."""
        self._kept = self.memory = Memory()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _load(path: Path) -> Memory:
    try:
        memory = msgspec.json.decode(path.read_bytes(), type=Memory)
    except FileNotFoundError:
        return Memory()
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise FileUnusable(_NOT_OURS.format(path)) from error
    if memory.v != 1:
        raise FileUnusable(_NOT_OURS.format(path))
    return memory


def _save(path: Path, memory: Memory) -> None:
    following = path.with_suffix(".new")
    try:
        with following.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(msgspec.json.encode(memory))
            file.flush()
            os.fsync(file.fileno())
        following.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FileUnusable(f"{path} cannot be written: {error.strerror}.") from error
