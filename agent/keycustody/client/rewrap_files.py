"""Files and folders of envelopes, moved to the newest version of their keys.

Looks at files one after another, asks the agent in batches of one key, version and context, and has
`slots` write. What it holds at once is bounded, however many files there are. It makes no call
itself: the caller hands in how session keys are rewrapped.

Running it again goes on where a run ended: a file that was moved says so in its header. That a
header names the newest version is enough to count it as done; whether the claim is true only a
decryption shows.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from keycustody.client import slots, walking
from keycustody.client.calls import Rewrapped
from keycustody.client.envelopes import ANY, AnyOr
from keycustody.client.slots import AT_ONCE, Change, Seen
from keycustody.errors import (
    InternalError,
    InvalidRequest,
    KeycustodyError,
    RateExceeded,
)

#: Wrapped keys of one request; small enough that other callers of the token get in between.
BATCH: Final = 256
#: Files that wait for their batch to fill, of all keys and contexts together.
_PENDING: Final = 2048
#: How often, and how many seconds apart, what may succeed a little later is asked again.
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 1.0

#: Key name, version, encoded context and wrapped keys in, rewrapped keys out.
Ask = Callable[[str, int, bytes, list[bytes]], Rewrapped]
#: `moved`: has the newest version's slot now. `newest`: had it already. `mended`: a killed run had
#: left its slot half written. `no-envelope`, `other-key`: not asked about. `failed`: see `error`.
Result = Literal["moved", "newest", "mended", "no-envelope", "other-key", "failed"]


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file. `error` only if it failed."""

    path: str
    result: Result
    error: KeycustodyError | None = None


class Rewrapping:
    """One run over files. `keys` are the only ones that are moved, or ANY; with `dry`, the agent is
    asked and no file is written."""

    def __init__(self, keys: Collection[str] | AnyOr, ask: Ask, *, dry: bool = False) -> None:
        if keys is not ANY and (isinstance(keys, str) or not keys):
            raise InvalidRequest("Name the keys whose envelopes are moved, or say keycustody.ANY.")
        self._keys = keys
        self._ask = ask
        self._dry = dry
        self._batch = BATCH
        self._newest: dict[str, int] = {}
        self._pending: dict[tuple[str, int, bytes], list[Seen]] = {}
        self._waiting = 0

    def run(self, paths: Iterable["str | os.PathLike[str]"]) -> Iterator[FileResult]:
        """Move what is at these paths, folders with all that is below them; one result a file.

        Raises what is `retryable` and lasts, such as `AgentUnreachable`: run it again later.
        """
        for found in walking.files(paths, self._settle):
            if isinstance(found, FileResult):
                yield found
            elif isinstance(found, str):
                yield from self._file(found)
            else:
                yield _failed(*found)
        yield from self._flush()

    def _settle(self, folder: str) -> Iterator[FileResult]:
        if not self._dry:
            for path, error in slots.settle(folder):
                yield FileResult(path, "failed" if error else "mended", error)

    def _file(self, path: str) -> Iterator[FileResult]:
        try:
            seen = slots.look(path)
        except KeycustodyError as error:
            yield _failed(path, error)
            return
        if seen is None:
            yield FileResult(path, "no-envelope")
            return
        header = seen.header
        if self._keys is not ANY and header.key not in self._keys:
            yield FileResult(path, "other-key")
        elif header.version == self._newest.get(header.key):
            yield FileResult(path, "newest")
        else:
            group = header.key, header.version, header.encoded_context
            self._pending.setdefault(group, []).append(seen)
            self._waiting += 1
            if len(self._pending[group]) >= self._batch:
                yield from self._move(group)
            elif self._waiting >= _PENDING:
                yield from self._flush()

    def _flush(self) -> Iterator[FileResult]:
        for group in list(self._pending):
            yield from self._move(group)

    def _move(self, group: tuple[str, int, bytes]) -> Iterator[FileResult]:
        files = self._pending.pop(group)
        self._waiting -= len(files)
        while files:
            part, files = files[: self._batch], files[self._batch :]
            try:
                answer = self._asked(group, [seen.header.wrapped_key for seen in part])
            except RateExceeded:
                # Larger than the grant's burst, which nobody tells us, or others are always faster.
                self._batch = max(1, len(part) // 2)
                files = part + files
                continue
            except KeycustodyError as error:
                if error.retryable:
                    raise
                yield from (_failed(seen.path, error) for seen in part)
                continue
            yield from self._answered(part, answer)

    def _asked(self, group: tuple[str, int, bytes], wrapped: list[bytes]) -> Rewrapped:
        for tried in range(1, _TRIES + 1):
            try:
                return self._ask(*group, wrapped)
            except KeycustodyError as error:
                # More than the grant's burst never succeeds, and nobody says when to try again.
                never = isinstance(error, RateExceeded) and error.retry_after is None
                if not error.retryable or (never and len(wrapped) > 1) or tried == _TRIES:
                    raise
                time.sleep(error.retry_after or _PAUSE_SECONDS)
        raise InternalError("Not reached.")

    def _answered(self, files: list[Seen], answer: Rewrapped) -> Iterator[FileResult]:
        changes: dict[str, list[Change]] = {}
        for seen, outcome in zip(files, answer.outcomes, strict=True):
            if isinstance(outcome, KeycustodyError):
                yield _failed(seen.path, outcome)
                continue
            self._newest[seen.header.key] = answer.version
            if answer.version == seen.header.version:
                yield FileResult(seen.path, "newest")
            elif self._dry:
                yield FileResult(seen.path, "moved")
            else:
                new = seen.header.with_slot(answer.version, outcome)
                changes.setdefault(seen.folder, []).append(Change(seen, new))
        for folder, moving in changes.items():
            for start in range(0, len(moving), AT_ONCE):
                part = moving[start : start + AT_ONCE]
                for change, done in zip(part, slots.replace(folder, part), strict=True):
                    path = change.seen.path
                    if isinstance(done, KeycustodyError):
                        yield _failed(path, done)
                    else:
                        yield FileResult(path, "moved" if done else "newest")


def _failed(path: str, error: KeycustodyError) -> FileResult:
    return FileResult(path, "failed", error)
