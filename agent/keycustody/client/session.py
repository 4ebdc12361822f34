"""A session: encryption under one wrap key and one context, at memory speed.

`SessionKeys` is the part without I/O, for any driver. `Session` is what users of the synchronous
client hold. A session's own key never enters the cache that decryption uses: whoever may only
generate session keys does not decrypt with them by accident.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Protocol, TypeVar

from keycustody.client import calls, envelope_files
from keycustody.client.calls import Flow, ask
from keycustody.client.delivery import Terms
from keycustody.client.envelopes import Bytes, Sealer
from keycustody.client.files import Progress, Source, Target
from keycustody.client.flows import leased
from keycustody.client.leases import Lease, Leases
from keycustody.errors import SessionEnded
from keycustody.formats import context as contexts
from keycustody.formats import names
from keycustody.formats.envelope import Header
from keycustody.formats.suites import SUITE_1

R = TypeVar("R")
_ONLY: Final = "session"


class Runner(Protocol):
    """Runs a flow to its end; the synchronous driver."""

    def __call__(self, flow: Flow[R], /) -> R: ...


class SessionKeys:
    """The session key in use, and how the next one is got. Thread-safe, no I/O."""

    def __init__(
        self,
        key: str,
        context: Mapping[str, str],
        *,
        clock: Callable[[], float],
        terms: Terms,
    ) -> None:
        names.check_key_name(key)
        self.key = key
        self.encoded_context = contexts.encode(context)
        self._terms = terms
        self._held: Leases[str, Sealer] = Leases(clock, capacity=1)

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._held.closed

    def open(self) -> Flow[None]:
        """Fetch the first session key, so that what is wrong is known at once."""
        if not self._held.claim(_ONLY, 0).value:
            try:
                sealer, lease = yield from self._fetch()
            except BaseException:
                self._held.abandon(_ONLY)
                raise
            self._held.fill(_ONLY, sealer, lease)

    def ready(self, size: int) -> Sealer | None:
        """The session key, if one is held and its lease allows a message of `size` bytes."""
        return self._held.take(_ONLY, size)

    def sealer(self, size: int) -> Flow[Sealer]:
        """The session key for a message of `size` bytes; a new one where the lease is used up.

        Raises `SessionEnded` once the session is closed.
        """
        if self.closed:
            raise SessionEnded("The session is closed; open another.")
        return (yield from leased(self._held, _ONLY, size, self._fetch))

    def charge(self, size: int) -> None:
        """Count bytes whose number was not known beforehand."""
        self._held.charge(_ONLY, size)

    def close(self) -> None:
        """Forget the session key. Idempotent."""
        self._held.close()

    def _fetch(self) -> Flow[tuple[Sealer, Lease]]:
        call = calls.generate(
            self.key,
            contexts.decode(self.encoded_context),
            contexts.digest(self.encoded_context),
            terms=self._terms,
        )
        new = yield from ask(call)
        header = Header(SUITE_1, self.key, self.encoded_context, new.version, new.wrapped)
        return Sealer(header, new.key), new.lease


class Session:
    """Encrypts messages and files for one key and context; `Agent.session` opens one.

    Thread-safe. When the lease that the agent gave is used up, the next message asks for a new
    session key by itself. The plaintext never leaves this process.
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
        state = "closed" if self._keys.closed else "open"
        return f"<keycustody.Session key={self.key!r} context={self.context!r} {state}>"

    @property
    def key(self) -> str:
        """The wrap key's name."""
        return self._keys.key

    @property
    def context(self) -> dict[str, str]:
        """The context that each envelope carries."""
        return contexts.decode(self._keys.encoded_context)

    def encrypt(self, plaintext: Bytes, *, associated_data: Bytes = b"") -> bytes:
        """Return an envelope of `plaintext`.

        `associated_data` is authenticated and not stored: decryption must be given the same. Put a
        sequence number in it where order matters. Raises `SessionEnded` after `close`, and whatever
        asking for a new session key raises.
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
