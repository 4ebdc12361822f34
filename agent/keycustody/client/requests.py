"""Everything that can be asked of an agent, for who may block: `Requests`.

Nothing is decided here: each method names a flow and runs it. Every error is a
`keycustody.KeycustodyError`.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import overload

from cryptography.hazmat.primitives.asymmetric import ec

from keycustody import algorithms
from keycustody.client import calls, envelope_files, signing
from keycustody.client.calls import Outcome, Rewrapped, ask
from keycustody.client.envelopes import AnyOr, Bytes, Expectation
from keycustody.client.files import Progress, Source, Target
from keycustody.client.flows import Operations, as_bytes, results_of
from keycustody.client.keys import PrivateKey, private_key
from keycustody.client.operators import KeyChanges
from keycustody.client.rewrap_files import FileResult, Rewrapping
from keycustody.client.session import Runner, Session
from keycustody.client.session_keys import opened
from keycustody.client.values import KeyInfo, PublicKey, Reloaded, Status
from keycustody.formats import context as contexts


class Requests:
    """Runs flows of `operations` by `run`. As thread-safe as that is."""

    def __init__(self, run: Runner, operations: Operations) -> None:
        self._run = run
        self._operations = operations

    # -- keys --------------------------------------------------------------------------------------

    def keys(self) -> list[KeyInfo]:
        """The keys that the caller may see, by name."""
        return self._run(ask(calls.list_keys()))

    def key(self, name: str) -> KeyInfo:
        """One key: purpose, algorithms, versions. Raises `KeyNotFound`."""
        return self._run(ask(calls.get_key(name)))

    def public_key(self, name: str, version: int | None = None) -> PublicKey:
        """The public half as a pyca key; `version` None is the newest active one."""
        return self.key(name).version(version).public_key()

    def private_key(self, name: str, version: int | None = None) -> PrivateKey:
        """The key as pyca has private keys, its operations in the token (`client.keys`).

        It stands for one version; None is the newest active one now. A `wrap` key is refused
        (`KeyPurpose`).
        """
        return private_key(self._run, self._operations, self.key(name), version)

    # -- signing, agreement, decryption ------------------------------------------------------------

    @overload
    def sign(
        self,
        name: str,
        items: Bytes,
        *,
        algorithm: str | None = ...,
        prehashed: bool = ...,
        raw: bool = ...,
        version: int | None = ...,
    ) -> bytes: ...

    @overload
    def sign(
        self,
        name: str,
        items: Sequence[Bytes],
        *,
        algorithm: str | None = ...,
        prehashed: bool = ...,
        raw: bool = ...,
        version: int | None = ...,
    ) -> list[bytes]: ...

    def sign(
        self,
        name: str,
        items: Bytes | Sequence[Bytes],
        *,
        algorithm: str | None = None,
        prehashed: bool = False,
        raw: bool = False,
        version: int | None = None,
    ) -> bytes | list[bytes]:
        """Sign one message, or each of many in as few round trips as possible.

        `algorithm` None is the key's default, `prehashed` says that the items are digests, `raw`
        makes ECDSA r || s in place of DER. If any item fails, the first one's error is raised;
        `sign_each` tells them apart.
        """
        one = isinstance(items, bytes | bytearray | memoryview)
        many = [items] if isinstance(items, bytes | bytearray | memoryview) else items
        outcomes = self.sign_each(
            name, many, algorithm=algorithm, prehashed=prehashed, raw=raw, version=version
        )
        results = results_of(outcomes)
        return results[0] if one else results

    def sign_each(
        self,
        name: str,
        items: Sequence[Bytes],
        *,
        algorithm: str | None = None,
        prehashed: bool = False,
        raw: bool = False,
        version: int | None = None,
    ) -> list[Outcome]:
        """As `sign` of many; a failed item has its error in its place, and does not raise."""
        inputs = [calls.SignInput(as_bytes(item), prehashed) for item in items]
        flow = self._operations.sign(name, inputs, algorithm=algorithm, raw=raw, version=version)
        return self._run(flow)

    def sign_file(
        self,
        name: str,
        source: Source,
        *,
        algorithm: str | None = None,
        raw: bool = False,
        version: int | None = None,
    ) -> bytes:
        """Sign a file or pipe. It is hashed here, in constant memory, where key and algorithm take
        a digest; else it is sent whole, up to the agent's message limit (1 MiB by default).

        Raises `FileUnusable` and `MessageTooLarge`.
        """
        info = self._run(self._operations.known_key(name))
        chosen = algorithm or self._run(self._operations.default_algorithm(name))
        entry = algorithms.signature(chosen)
        item = signing.file_input(source, entry, prehashed=info.prehashed)
        flow = self._operations.sign(name, [item], algorithm=chosen, raw=raw, version=version)
        return results_of(self._run(flow))[0]

    def agree(
        self, name: str, peer_public_key: ec.EllipticCurvePublicKey, *, version: int | None = None
    ) -> bytes:
        """The ECDH shared secret, the x coordinate: derive keys from it, never use it as one."""
        flow = self._operations.agree(name, [peer_public_key], version=version)
        return results_of(self._run(flow))[0]

    def rsa_decrypt(
        self,
        name: str,
        ciphertext: Bytes,
        *,
        algorithm: str | None = None,
        version: int | None = None,
    ) -> bytes:
        """Decrypt RSA-OAEP with a key of purpose `decrypt`. `algorithm` None is its default; name
        the `version` whose public key was used if the key was rotated since."""
        flow = self._operations.rsa_decrypt(
            name, [as_bytes(ciphertext)], algorithm=algorithm, version=version
        )
        return results_of(self._run(flow))[0]

    # -- envelopes ---------------------------------------------------------------------------------

    def session(self, key: str, *, context: Mapping[str, str] | None = None) -> Session:
        """Open a session: encryption here, under a session key that the token made for `context`.

        `context` is string pairs, not secret, that decryption has to name again. Close the session,
        or use it in a `with` statement, and its key is forgotten.
        """
        return Session(self._run(opened(self._operations, key, context or {})), self._run)

    def decrypt(
        self,
        envelope: Bytes,
        *,
        key: str | AnyOr,
        context: Mapping[str, str] | AnyOr,
        associated_data: Bytes = b"",
    ) -> bytes:
        """Open an envelope that is for this key and this context; `ANY` accepts what it says.

        Each distinct session key is unwrapped by the token once within its lease. Raises
        `UnexpectedKey` and `UnexpectedContext` before the agent is asked, `MalformedEnvelope`,
        `WrappedKeyRejected`, and `DecryptionFailed` for all that is wrong with the rest.
        """
        expected = Expectation.of(key, context)
        opened = self._operations.open_held(envelope, expected, associated_data)
        if opened is not None:
            return opened
        return self._run(self._operations.open_message(envelope, expected, associated_data))

    def decrypt_file(
        self,
        source: Source,
        target: Target,
        *,
        key: str | AnyOr,
        context: Mapping[str, str] | AnyOr,
        associated_data: Bytes = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `decrypt`, for a file or pipe of any size in constant memory.

        A target that is a path appears complete (readable by its owner only), or not at all. A pipe
        may have got an authenticated prefix when an error is raised: use nothing of it then.
        `progress` is called as `Session.encrypt_file` does.
        """
        envelope_files.decrypt(
            source,
            target,
            Expectation.of(key, context),
            lambda header, size: self._run(self._operations.opener(header, size)),
            self._operations.charge,
            associated_data=associated_data,
            progress=progress,
        )

    def rewrap(
        self, envelope: Bytes, *, key: str | AnyOr, context: Mapping[str, str] | AnyOr
    ) -> bytes:
        """Return an envelope, or its header alone, moved to the newest version of its key.

        The token wraps the same session key again, and only the header's slot differs; nothing is
        decrypted. Key and context are required as in `decrypt`. Raises what that does, except
        `DecryptionFailed`: the body is not looked at.
        """
        expected = Expectation.of(key, context)
        return self._run(self._operations.rewrap_message(envelope, expected))

    def rewrap_keys(
        self, key: str, version: int, context: Mapping[str, str], wrapped_keys: Sequence[Bytes]
    ) -> Rewrapped:
        """Have wrapped keys of one version and context wrapped under the newest version.

        For who stores wrapped keys apart from their ciphertexts. A wrapped key that is refused has
        its error in its place.
        """
        wrapped = [as_bytes(one) for one in wrapped_keys]
        encoded = contexts.encode(context)
        return self._run(self._operations.rewrap(key, version, encoded, wrapped))

    def rewrap_files(
        self,
        paths: Iterable["str | os.PathLike[str]"],
        *,
        keys: Collection[str] | AnyOr,
        dry_run: bool = False,
    ) -> Iterator[FileResult]:
        """Move the envelopes at these paths, folders with all that is below them, in place.

        Only the header's slot is written, and a killed run harms nothing (docs/rewrap.md). Yields
        what became of each file; nothing is done before the first is asked for. Raises what is
        retryable and lasts, such as `AgentUnreachable`: run it again later.
        """
        run = Rewrapping(
            keys,
            lambda *asked: self._run(self._operations.rewrap(*asked)),
            dry=dry_run,
        )
        return run.run(paths)

    # -- operators ---------------------------------------------------------------------------------

    def status(self) -> Status:
        """How the agent is. It answers on the administrators' socket only."""
        return self._run(ask(calls.get_status()))

    def reload(self) -> Reloaded:
        """Have the agent read its settings again; if it refuses them, it goes on as before."""
        return self._run(ask(calls.reload()))

    @property
    def key_changes(self) -> KeyChanges:
        """Changes to the keys on the token. They answer on the administrators' socket only."""
        return KeyChanges(self._run)
