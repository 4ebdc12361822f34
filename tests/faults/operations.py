"""What callers ask of a token, each with the proof that its answer is right.

An answer that is merely there proves little behind a module that lies: signatures are verified,
agreements and plaintexts compared, session keys opened.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keycustody.formats.delivery import open_sealed, public_point
from keycustody.token.api import (
    Agree,
    Decrypt,
    Delivered,
    GenerateSessionKey,
    Recipient,
    Scan,
    SelfTest,
    Sign,
    UnwrapSessionKeys,
)
from tests.faults.control import Control
from tests.integration.token.opened import Made, OpenedPool, opened
from tests.softhsm import SoftHsmToken

DIGEST = bytes(range(32))
CONTEXT = bytes(32)
PLAINTEXT = b"what was encrypted to the token"


@contextlib.contextmanager
def behind(
    token: SoftHsmToken, shim: Path, control: Control, workers: int = 2
) -> Iterator[OpenedPool]:
    """Open a pool that reaches the token through the shim."""
    environment = {
        **token.environment,
        "FAULTS_MODULE": token.module,
        "FAULTS_CONTROL": str(control.path),
    }
    with opened(token, module=str(shim), environment=environment, workers=workers) as pool:
        yield pool


@dataclass(frozen=True)
class Operations:
    """A pool, and a key for each operation."""

    pool: OpenedPool
    signing: Made
    agreeing: Made
    decrypting: Made
    wrapping: Made
    delivery: Made
    wrapped: bytes
    session_key: bytes
    ciphertext: bytes
    ephemeral: ec.EllipticCurvePrivateKey

    @property
    def names(self) -> dict[str, Callable[[float], None]]:
        """Each operation: do it within so many seconds, and prove its answer."""
        return {
            "sign": self.sign,
            "agree": self.agree,
            "decrypt": self.decrypt,
            "generate": self.generate,
            "unwrap": self.unwrap,
            "scan": self.scan,
            "self-test": self.self_test,
        }

    def do(self, operation: str, timeout: float = 10.0) -> None:
        """Do one operation and prove its answer. Raises errors of `keycustody.errors`."""
        self.names[operation](timeout)

    def sign(self, timeout: float) -> None:
        request = Sign(self.signing.ref, "ECDSA_SHA_256", [DIGEST])
        (signature,) = self.pool.call(request, timeout).items
        assert isinstance(signature, bytes), signature
        verify(self.signing, signature)

    def agree(self, timeout: float) -> None:
        request = Agree(self.agreeing.ref, [public_point(self.ephemeral)])
        (shared,) = self.pool.call(request, timeout).items
        public = load_der_public_key(self.agreeing.public_key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert shared == self.ephemeral.exchange(ec.ECDH(), public)

    def decrypt(self, timeout: float) -> None:
        request = Decrypt(self.decrypting.ref, "RSA_OAEP_SHA_1", [self.ciphertext])
        assert self.pool.call(request, timeout).items == [PLAINTEXT]

    def generate(self, timeout: float) -> None:
        made = self.pool.call(generation(self.wrapping, self._recipient), timeout)
        assert len(_opened(self, made.wrapped, made.delivered)) == 32

    def unwrap(self, timeout: float) -> None:
        key = self.wrapping
        request = UnwrapSessionKeys(
            key.ref, key.name, 1, 1, CONTEXT, [self.wrapped], self._recipient
        )
        (delivered,) = self.pool.call(request, timeout).items
        assert isinstance(delivered, Delivered), delivered
        assert _opened(self, self.wrapped, delivered) == self.session_key

    def scan(self, timeout: float) -> None:
        found = self.pool.call(Scan(), timeout).objects
        labels = [one.label for one in found if one.attributes.get("SENSITIVE")]
        for made in (self.signing, self.agreeing, self.decrypting, self.wrapping, self.delivery):
            assert made.ref.label in labels

    def self_test(self, timeout: float) -> None:
        self.pool.call(SelfTest(self.signing.ref), timeout)

    @property
    def _recipient(self) -> Recipient:
        return Recipient(public_point(self.ephemeral), self.delivery.ref)


def prepared(pool: OpenedPool) -> Operations:
    """Make the keys, and what is unwrapped and decrypted."""
    wrapping = pool.make("wrap", "AES_256_HMAC_SHA_256")
    delivery = pool.make("agree", "EC_P256", "keycustody:delivery.v1")
    decrypting = pool.make("decrypt", "RSA_2048")
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    recipient = Recipient(public_point(ephemeral), delivery.ref)
    made = pool.call(generation(wrapping, recipient))
    public = load_der_public_key(decrypting.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    sha1 = hashes.SHA1()  # noqa: S303 (what SoftHSM's OAEP has)
    ciphertext = public.encrypt(PLAINTEXT, padding.OAEP(padding.MGF1(sha1), sha1, None))
    operations = Operations(
        pool=pool,
        signing=pool.make("sign", "EC_P256"),
        agreeing=pool.make("agree", "EC_P256"),
        decrypting=decrypting,
        wrapping=wrapping,
        delivery=delivery,
        wrapped=made.wrapped,
        session_key=b"",
        ciphertext=ciphertext,
        ephemeral=ephemeral,
    )
    return replace(operations, session_key=_opened(operations, made.wrapped, made.delivered))


def generation(key: Made, recipient: Recipient) -> GenerateSessionKey:
    """A request for a session key."""
    return GenerateSessionKey(key.ref, key.name, 1, 1, CONTEXT, recipient)


def verify(made: Made, signature: bytes) -> None:
    """Verify an ECDSA signature of `DIGEST`."""
    public = load_der_public_key(made.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    public.verify(encode_dss_signature(r, s), DIGEST, ec.ECDSA(Prehashed(hashes.SHA256())))


def _opened(operations: Operations, wrapped: bytes, delivered: Delivered) -> bytes:
    return open_sealed(
        operations.ephemeral,
        delivered.sealed,
        delivery_point=delivered.delivery_point,
        client_point=public_point(operations.ephemeral),
        suite=1,
        name=operations.wrapping.name,
        version=1,
        context_hash=CONTEXT,
        wrapped=wrapped,
    )
