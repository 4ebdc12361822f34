"""Runs a profile's claims against its module, through `Hsm`, in a process of its own.

Reads `{"profile", "module", "label", "pin", "claims", "made"}` as JSON from standard input. Writes
`{"answers", "made"}`: for each claim "" (it holds) or what went wrong, and the keys that were made.
Given `made`, it uses those keys again instead of making any: what a module shows to the process
that made a key need not be what it shows to the next one.
"""

import base64
import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Iterator

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody.algorithms import (
    DECRYPTIONS,
    KEYS,
    Purpose,
    Scheme,
    SignatureAlgorithm,
    signatures_for,
)
from keycustody.errors import KeycustodyError, UnsupportedByToken
from keycustody.formats.delivery import open_sealed, public_point
from keycustody.token.api import (
    Agree,
    Created,
    CreateVersion,
    Decrypt,
    GenerateSessionKey,
    KeyRef,
    Login,
    Open,
    Outputs,
    Recipient,
    Scan,
    Scanned,
    Secret,
    SessionKey,
    Sign,
    WriteData,
)
from keycustody.token.attributes import STATE_APPLICATION, amiss, objects_of
from keycustody.token.hsm import Hsm
from keycustody.token.profiles import Profile, load

_HASHES = {
    "SHA_1": hashes.SHA1(),  # noqa: S303 (in OAEP only, where it needs no collision resistance)
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}
_MESSAGE = b"what the contract test signs"
_DATA = "data objects"
_SEALED = "sealed delivery"


def claims(profile: Profile) -> Iterator[str]:
    """Name everything that a profile says, one way or the other."""
    for key in KEYS.values():
        for purpose in sorted(key.purposes):
            yield f"{purpose.value} with {key.name}"
    yield _DATA
    yield _SEALED


class Made(msgspec.Struct):
    """A key version that one process made and the next one uses."""

    ref: KeyRef
    public_key: bytes


class Exercise:
    """One module, open and logged in, and what its profile says of it."""

    def __init__(self, hsm: Hsm, profile: Profile, made: dict[str, Made]) -> None:
        self._hsm = hsm
        self._profile = profile
        self.made = made

    def check(self, claim: str) -> str:
        """Return "" if the module does what the profile claims, else what it did instead."""
        try:
            if claim in self.made:
                self._use(self.made[claim])
            else:
                self._doing(claim)()
        except KeycustodyError as error:
            return f"{error.code}: {error.message} ({error.__cause__!r})"
        except (AssertionError, InvalidSignature) as error:
            return repr(error)
        return ""

    def _doing(self, claim: str) -> Callable[[], None]:
        if claim == _DATA:
            return self._keeps_data if self._profile.data_objects else self._refuses_data
        if claim == _SEALED:
            return self._seals if self._profile.sealed_delivery else self._does_not_seal
        purpose_name, _, algorithm = claim.partition(" with ")
        purpose = Purpose(purpose_name)
        if not self._profile.serves(purpose, algorithm):
            return lambda: self._refuses(purpose, algorithm)

        def create_and_use() -> None:
            self.made[claim] = Made(*self._create(purpose, algorithm))
            self._use(self.made[claim])

        return create_and_use

    def _use(self, made: Made) -> None:
        self._is_listed(made.ref)
        match Purpose(made.ref.purpose):
            case Purpose.SIGN:
                self._signs(made.ref, made.public_key)
            case Purpose.AGREE:
                self._agrees(made.ref, made.public_key)
            case Purpose.DECRYPT:
                self._decrypts(made.ref, made.public_key)
            case Purpose.WRAP:
                self._wraps(made.ref, None)

    def _create(self, purpose: Purpose, algorithm: str) -> tuple[KeyRef, bytes]:
        label, id_ = f"contract-{secrets.token_hex(4)}.v1", secrets.token_bytes(16)
        made = self._hsm.perform(CreateVersion(label, id_, purpose.value, algorithm))
        assert isinstance(made, Created)
        pinned = hashlib.sha256(made.public_key).digest() if made.public_key else b""
        return KeyRef(label, id_, purpose.value, algorithm, pinned), made.public_key

    def _is_listed(self, ref: KeyRef) -> None:
        scanned = self._hsm.perform(Scan())
        assert isinstance(scanned, Scanned)
        found = [one for one in scanned.objects if one.label == ref.label]
        wanted = objects_of(ref.purpose, ref.algorithm, self._profile)
        assert amiss(wanted, ref.id, found) == []

    def _refuses(self, purpose: Purpose, algorithm: str) -> None:
        try:
            self._create(purpose, algorithm)
        except UnsupportedByToken:
            return
        raise AssertionError("made a key that the profile does not have")

    def _signs(self, ref: KeyRef, public_key: bytes) -> None:
        served = self._profile.signatures()
        algorithms = [a for a in signatures_for(KEYS[ref.algorithm]) if a.name in served]
        assert algorithms
        for algorithm in algorithms:
            signed = _MESSAGE if algorithm.hash is None else _digest(algorithm.hash)
            reply = self._hsm.perform(Sign(ref, algorithm.name, [signed, signed]))
            assert isinstance(reply, Outputs)
            assert len(reply.items) == 2
            for signature in reply.items:
                assert isinstance(signature, bytes), signature
                _verify(public_key, algorithm, signed, signature)

    def _agrees(self, ref: KeyRef, public_key: bytes) -> None:
        public = load_der_public_key(public_key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        ephemeral = ec.generate_private_key(public.curve)
        reply = self._hsm.perform(Agree(ref, [public_point(ephemeral)]))
        assert isinstance(reply, Outputs)
        assert reply.items == [ephemeral.exchange(ec.ECDH(), public)]

    def _decrypts(self, ref: KeyRef, public_key: bytes) -> None:
        public = load_der_public_key(public_key)
        assert isinstance(public, rsa.RSAPublicKey)
        for name, algorithm in DECRYPTIONS.items():
            hashed = _HASHES[algorithm.hash]
            sealed = public.encrypt(_MESSAGE, padding.OAEP(padding.MGF1(hashed), hashed, None))
            request = Decrypt(ref, name, [sealed])
            if name in self._profile.decryptions:
                reply = self._hsm.perform(request)
                assert isinstance(reply, Outputs)
                assert reply.items == [_MESSAGE]
            else:
                try:
                    self._hsm.perform(request)
                except UnsupportedByToken:
                    continue
                raise AssertionError(f"decrypted {name}")

    def _wraps(self, ref: KeyRef, delivery: KeyRef | None) -> None:
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        context_hash = hashlib.sha256(b"context").digest()
        point = public_point(ephemeral)
        recipient = Recipient(point, delivery)
        name = ref.label.removesuffix(".v1")
        reply = self._hsm.perform(GenerateSessionKey(ref, name, 1, 1, context_hash, recipient))
        assert isinstance(reply, SessionKey)
        if delivery is None:
            assert len(reply.delivered.plain) == 32
            return
        assert reply.delivered.plain == b""
        session_key = open_sealed(
            ephemeral,
            reply.delivered.sealed,
            delivery_point=reply.delivered.delivery_point,
            client_point=point,
            suite=1,
            name=name,
            version=1,
            context_hash=context_hash,
            wrapped=reply.wrapped,
        )
        assert len(session_key) == 32

    def _seals(self) -> None:
        delivery, _ = self._create(Purpose.AGREE, "EC_P256")
        ref, _ = self._create(Purpose.WRAP, "AES_256_HMAC_SHA_256")
        self._wraps(ref, delivery)

    def _does_not_seal(self) -> None:
        assert not self._profile.serves(Purpose.AGREE, "EC_P256") or self._profile.seal is None

    def _keeps_data(self) -> None:
        label = f"contract-{secrets.token_hex(4)}.v1"
        value = secrets.token_bytes(500)
        self._hsm.perform(WriteData(STATE_APPLICATION, label, value))
        scanned = self._hsm.perform(Scan())
        assert isinstance(scanned, Scanned)
        assert [one.value for one in scanned.objects if one.label == label] == [value]

    def _refuses_data(self) -> None:
        try:
            self._hsm.perform(WriteData(STATE_APPLICATION, "contract.v1", b"value"))
        except UnsupportedByToken:
            return
        raise AssertionError("wrote a data object")


def _digest(name: str) -> bytes:
    digest = hashes.Hash(_HASHES[name])
    digest.update(_MESSAGE)
    return digest.finalize()


def _verify(
    public_key: bytes, algorithm: SignatureAlgorithm, signed: bytes, signature: bytes
) -> None:
    public = load_der_public_key(public_key)
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, signed)
        return
    hashed = _HASHES[str(algorithm.hash)]
    if isinstance(public, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        r, s = (int.from_bytes(part) for part in (signature[:half], signature[half:]))
        public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(Prehashed(hashed)))
        return
    assert isinstance(public, rsa.RSAPublicKey)
    scheme = (
        padding.PSS(padding.MGF1(hashed), hashed.digest_size)
        if algorithm.scheme is Scheme.RSA_PSS
        else padding.PKCS1v15()
    )
    public.verify(signature, signed, scheme, Prehashed(hashed))


def main() -> None:
    """Check the claims that are asked for."""
    told = json.load(sys.stdin)
    profile = load(told["profile"])
    hsm = Hsm()
    hsm.open(Open(told["module"], told["profile"], label=told["label"]))
    hsm.login(Login(Secret(told["pin"].encode())))
    made = msgspec.json.decode(base64.b64decode(told["made"]), type=dict[str, Made])
    exercise = Exercise(hsm, profile, made)
    answers = {claim: exercise.check(claim) for claim in told["claims"]}
    packed = base64.b64encode(msgspec.json.encode(exercise.made)).decode()
    # A module may write to standard output as well, so ours stands alone on the last line.
    sys.stdout.write("\n" + json.dumps({"answers": answers, "made": packed}) + "\n")


if __name__ == "__main__":
    main()
