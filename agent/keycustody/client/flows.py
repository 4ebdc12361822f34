"""Operations that need no call, one, or several: generators that yield steps, no I/O.

An `Operations` belongs to one agent and holds what outlives a call: unwrapped session keys within
their leases, and for a minute what keys are like. Any driver runs its flows; all is thread-safe.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.client import calls
from keycustody.client.calls import Beside, Flow, Outcome, Rewrapped, SignInput, Wait, ask
from keycustody.client.delivery import Terms
from keycustody.client.envelopes import Bytes, Expectation, Opener
from keycustody.client.leases import K, Lease, Leases
from keycustody.client.process import Home
from keycustody.client.values import KeyInfo
from keycustody.errors import InvalidRequest, KeycustodyError, KeyPurpose
from keycustody.formats import context as contexts
from keycustody.formats import names
from keycustody.formats.envelope import Header, parse

V = TypeVar("V")

#: One request holds this many items and bytes at most; more are sent in several. The agent's own
#: limits are 1,024 items and, unless configured otherwise, 8 MiB.
BATCH_ITEMS: Final = 1024
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Unwrapped session keys held at once: a bound on secrets rather than on memory.
UNWRAPPED_CAPACITY: Final = 1024
#: How long a key's default algorithm is believed.
_KEY_LEASE: Final = Lease(seconds=60, messages=2**63, bytes=2**63)
_KEY_CAPACITY: Final = 1024
#: Made once: a union made at each call costs a message a twentieth of its time.
_BYTES = (bytes, bytearray, memoryview)

#: Suite, key, version, encoded context, wrapped key: all that a wrapped key is bound to.
Wrapped: TypeAlias = tuple[int, str, int, bytes, bytes]


def leased(
    held: Leases[K, V], ident: K, size: int, fetch: Callable[[], Flow[tuple[V, Lease]]]
) -> Flow[V]:
    """Use what is held, or fetch it, once however many ask for it at the same time."""
    while True:
        claim = held.claim(ident, size)
        if claim.value is not None:
            if claim.due:
                yield Beside(_renewed(held, ident, fetch))
            return claim.value
        if claim.pending is not None:
            yield Wait(claim.pending)
            continue
        value = yield from _fetched(held, ident, fetch)
        used = held.take_new(ident, size)
        return value if used is None else used


def _fetched(held: Leases[K, V], ident: K, fetch: Callable[[], Flow[tuple[V, Lease]]]) -> Flow[V]:
    """Fetch what was claimed."""
    try:
        value, lease = yield from fetch()
    except BaseException:  # also a closed generator: whoever waits must go on
        held.abandon(ident)
        raise
    held.fill(ident, value, lease)
    return value


def _renewed(
    held: Leases[K, V], ident: K, fetch: Callable[[], Flow[tuple[V, Lease]]]
) -> Flow[None]:
    """Fetch what was claimed ahead of time; if that fails, what is held serves on."""
    with suppress(KeycustodyError):
        yield from _fetched(held, ident, fetch)


class Operations:
    """What an agent can be asked, as flows. `clock` returns seconds and never goes back."""

    def __init__(self, clock: Callable[[], float], terms: Terms) -> None:
        self.clock = clock
        self.terms = terms
        self._unwrapped: Leases[Wrapped, Opener] = Leases(clock, UNWRAPPED_CAPACITY)
        self._keys: Leases[str, KeyInfo] = Leases(clock, _KEY_CAPACITY)
        self._last: tuple[bytes, Header] | None = None
        self._home = Home()

    def close(self) -> None:
        """Forget every session key."""
        self._unwrapped.close()

    def default_algorithm(self, name: str) -> Flow[str]:
        """The first algorithm that the operator lists for the key."""
        info = yield from self.known_key(name)
        if not info.algorithms:
            raise KeyPurpose(f"Key {name!r} is for {info.purpose}; it neither signs nor decrypts.")
        return info.algorithms[0]

    def known_key(self, name: str) -> Flow[KeyInfo]:
        """The key, as it was at most a minute ago."""

        def fetch() -> Flow[tuple[KeyInfo, Lease]]:
            info = yield from ask(calls.get_key(name))
            return info, _KEY_LEASE

        return (yield from leased(self._keys, name, 0, fetch))

    def sign(
        self,
        name: str,
        items: Sequence[SignInput],
        *,
        algorithm: str | None = None,
        raw: bool = False,
        version: int | None = None,
    ) -> Flow[list[Outcome]]:
        """Sign any number of items, in as many requests as that takes."""
        number = _version(version)
        chosen = algorithm or (yield from self.default_algorithm(name))
        outcomes: list[Outcome] = []
        for batch in _batches(items, lambda item: len(item.data)):
            call = calls.sign(name, chosen, batch, raw=raw, version=number)
            outcomes += yield from ask(call)
        return outcomes

    def agree(
        self,
        name: str,
        peers: Sequence[ec.EllipticCurvePublicKey],
        *,
        version: int | None = None,
    ) -> Flow[list[Outcome]]:
        """Agree with any number of peers."""
        number = _version(version)
        points = [_point(peer) for peer in peers]
        outcomes: list[Outcome] = []
        for batch in _batches(points, len):
            outcomes += yield from ask(calls.agree(name, batch, version=number))
        return outcomes

    def rsa_decrypt(
        self,
        name: str,
        ciphertexts: Sequence[bytes],
        *,
        algorithm: str | None = None,
        version: int | None = None,
    ) -> Flow[list[Outcome]]:
        """Decrypt any number of RSA-OAEP ciphertexts."""
        number = _version(version)
        chosen = algorithm or (yield from self.default_algorithm(name))
        outcomes: list[Outcome] = []
        for batch in _batches(ciphertexts, len):
            outcomes += yield from ask(calls.decrypt(name, chosen, batch, version=number))
        return outcomes

    def opener(self, header: Header, size: int) -> Flow[Opener]:
        """The session key for a header that was checked, for a message of `size` bytes."""
        fetch = partial(self._unwrap, header)
        return (yield from leased(self._unwrapped, _ident(header), size, fetch))

    def _unwrap(self, header: Header) -> Flow[tuple[Opener, Lease]]:
        call = calls.unwrap(
            header.key,
            header.version,
            header.context,
            header.context_hash,
            header.wrapped_key,
            terms=self.terms,
        )
        key, lease = yield from ask(call)
        return Opener(header, key), lease

    def open_held(self, data: Bytes, expected: Expectation, associated_data: Bytes) -> bytes | None:
        """As `open_message`, if nobody needs to be asked; else None."""
        self._home.check()
        view = _view(data)
        header, start = self._parse(view)
        expected.check(header)
        opener = self._unwrapped.take(_ident(header), len(view) - start)
        return None if opener is None else opener.open(view[start:], associated_data)

    def open_message(
        self, data: Bytes, expected: Expectation, associated_data: Bytes
    ) -> Flow[bytes]:
        """The plaintext of an envelope in memory, once its header is what is expected."""
        view = _view(data)
        header, start = self._parse(view)
        expected.check(header)
        opener = yield from self.opener(header, len(view) - start)
        return opener.open(view[start:], associated_data)

    def rewrap(
        self, name: str, version: int, encoded_context: bytes, wrapped: Sequence[bytes]
    ) -> Flow[Rewrapped]:
        """Wrap session keys of one version and context under the newest, in as many requests as
        that takes."""
        names.check_version(version)
        context = contexts.decode(encoded_context)
        while True:
            answers: list[Rewrapped] = []
            for batch in _batches(wrapped, len):
                answer = yield from ask(calls.rewrap(name, version, context, batch))
                answers.append(answer)
            # A key that was rotated in the middle is asked again: the answers have one version.
            if len({answer.version for answer in answers}) <= 1:
                break
        newest = answers[0].version if answers else version
        return Rewrapped(newest, [one for answer in answers for one in answer.outcomes])

    def rewrap_message(self, data: Bytes, expected: Expectation) -> Flow[bytes]:
        """An envelope, or its header alone, with the slot of the newest version."""
        view = _view(data)
        header, start = parse(view)
        expected.check(header)
        moved = yield from self.rewrap(
            header.key, header.version, header.encoded_context, [header.wrapped_key]
        )
        (wrapped,) = results_of(moved.outcomes)
        return header.with_slot(moved.version, wrapped).encode() + bytes(view[start:])

    def charge(self, header: Header, size: int) -> None:
        """Count bytes whose number was not known when `opener` was called."""
        self._unwrapped.charge(_ident(header), size)

    def _parse(self, data: memoryview) -> tuple[Header, int]:
        """The header at the start of `data`; that of the last envelope is known at a glance."""
        last = self._last
        # As bytes: a view is compared item by item.
        if last is not None and data[: len(last[0])].tobytes() == last[0]:
            return last[1], len(last[0])
        header, start = parse(data)
        self._last = bytes(data[:start]), header
        return header, start


def results_of(outcomes: Sequence[Outcome]) -> list[bytes]:
    """The results, or the first failed item's error raised."""
    results: list[bytes] = []
    for outcome in outcomes:
        if isinstance(outcome, KeycustodyError):
            raise outcome
        results.append(outcome)
    return results


def _view(value: Bytes) -> memoryview:
    if not isinstance(value, _BYTES):
        raise InvalidRequest(f"Give bytes, not {type(value).__name__}.")
    return memoryview(value).cast("B")


def as_bytes(value: Bytes) -> bytes:
    """`value` as bytes. Raises `InvalidRequest` for what is not bytes-like."""
    if not isinstance(value, _BYTES):
        raise InvalidRequest(f"Give bytes, not {type(value).__name__}.")
    return bytes(value)


def _ident(header: Header) -> Wrapped:
    # All that a wrapped key is bound to, so that a cached key answers only what the agent would.
    return (
        header.suite,
        header.key,
        header.version,
        header.encoded_context,
        header.wrapped_key,
    )


def _version(version: int | None) -> int:
    if version is None:
        return 0
    names.check_version(version)
    return version


def _point(peer: ec.EllipticCurvePublicKey) -> bytes:
    if not isinstance(peer, ec.EllipticCurvePublicKey):
        raise InvalidRequest("A peer's public key is an EllipticCurvePublicKey.")
    return peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _batches(items: Sequence[V], size: Callable[[V], int]) -> Iterator[list[V]]:
    batch: list[V] = []
    total = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or total + size(item) > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch
