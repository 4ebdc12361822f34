"""A session: encryption under one wrap key and one context, at memory speed.

`Session` is what users of the synchronous client hold; `session_keys` is the part without I/O.
"""

from types import TracebackType
from typing import Protocol, TypeVar

from keycustody.client import envelope_files
from keycustody.client.calls import Flow
from keycustody.client.envelopes import Bytes
from keycustody.client.files import Progress, Source, Target
from keycustody.client.session_keys import SessionKeys
from keycustody.errors import (
    KeycustodyError,
)

R = TypeVar("R")


class Runner(Protocol):
    """Runs a flow to its end; the synchronous driver."""

    def __call__(self, flow: Flow[R], /) -> R: ...


class Session:
    """Encrypts messages and files for one key and context; `Agent.session` opens one.

    Thread-safe. Before the lease that the agent gave is used up, a message has a new session key
    asked for, and does not wait for it. The plaintext never leaves this process.
    """

    def __init__(self, keys: SessionKeys, run: Runner) -> None:
        self._keys = keys
        self._run = run

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<keycustody.Session {self._keys}>"

    @property
    def key(self) -> str:
        """The wrap key's name."""
        return self._keys.key

    @property
    def degraded(self) -> KeycustodyError | None:
        """Why the session key could not be renewed when that was last tried; None while all is
        well. The session works until the lease of the key that it has ends."""
        return self._keys.degraded

    @property
    def context(self) -> dict[str, str]:
        """The context that each envelope carries."""
        return self._keys.context

    def encrypt(self, plaintext: Bytes, *, associated_data: Bytes = b"") -> bytes:
        """Return an envelope of `plaintext`.

        `associated_data` is authenticated and not stored: decryption must be given the same. Put a
        sequence number in it where order matters. Raises `SessionEnded` after `close`, `LeaseEnded`
        when the lease ended and the agent is away, and whatever else asking for a new session key
        raises.
        """
        size = len(plaintext)
        sealer = self._keys.ready(size) or self._run(self._keys.sealer(size))
        return sealer.seal(plaintext, associated_data)

    def encrypt_file(
        self,
        source: Source,
        target: Target,
        *,
        associated_data: Bytes = b"",
        progress: Progress | None = None,
    ) -> None:
        """Encrypt a file or a pipe, of any size, in constant memory.

        `source` and `target` are paths or binary file objects. A path appears complete or not at
        all: it is written under another name and renamed, so both may be the same file. `progress`
        is called with the bytes of `source` done and their total, None if that is not known, in
        this thread. Raises `FileUnusable`, and what `encrypt` raises.
        """
        envelope_files.encrypt(
            source,
            target,
            lambda size: self._run(self._keys.sealer(size)),
            self._keys.charge,
            associated_data=associated_data,
            progress=progress,
        )

    def close(self) -> None:
        """Forget the session key; nothing can be encrypted any more. Idempotent."""
        self._keys.close()
