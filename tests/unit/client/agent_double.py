"""A transport double: a real gRPC server that speaks our proto, with keys in memory.

It stands in for the agent where the client's own behaviour is under test: what it sends, what it
refuses to believe, how failures read. What an agent decides is tested against the real one, in
tests/integration/client. `tamper` lets a test edit an answer on its way out.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from hmac import compare_digest, digest
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody import errors, wire
from keycustody.formats import context as contexts
from keycustody.formats import delivery, wrapped_key
from keycustody.v1 import admin_service_pb2 as admin
from keycustody.v1 import agreement_service_pb2 as agreement
from keycustody.v1 import key_service_pb2 as keys
from keycustody.v1 import session_key_service_pb2 as sessions
from keycustody.v1 import signing_service_pb2 as signing

MESSAGE_BYTES = 1024 * 1024
REQUEST_BYTES = 8 * 1024 * 1024
P256 = ec.SECP256R1()
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
KEYS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "release": ("sign", "EC_P256", ("ECDSA_SHA_256",)),
    "strict": ("sign", "EC_P256", ("ECDSA_SHA_256",)),
    "tokens": ("sign", "ED25519", ("ED25519",)),
    "code": ("sign", "RSA_2048", ("RSA_PSS_SHA_256", "RSA_PKCS1_SHA_256")),
    "hpke": ("agree", "EC_P256", ()),
    "mail": ("decrypt", "RSA_2048", ("RSA_OAEP_SHA_256", "RSA_OAEP_SHA_1")),
    "invoices": ("wrap", "AES_256_HMAC_SHA_256", ()),
}
HASHES: dict[str, Any] = {"SHA_256": hashes.SHA256(), "SHA_1": hashes.SHA1()}  # noqa: S303


def _private(algorithm: str) -> Any:
    match algorithm:
        case "EC_P256":
            return ec.generate_private_key(P256)
        case "ED25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return _rsa()


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass
class AgentDouble:
    """Keys in memory, a count of calls, and hooks for what should go wrong."""

    private: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    lease: tuple[int, int, int] = (3600, 1000, 2**40)
    plain: bool = False
    tamper: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    wrapping: bytes = b"w" * 32
    authenticating: bytes = b"a" * 32
    newest: int = 1

    def __post_init__(self) -> None:
        for name, (purpose, algorithm, _) in KEYS.items():
            if purpose != "wrap":
                self.private[name] = _private(algorithm)
        self.delivery = ec.generate_private_key(P256)

    def count(self, method: str) -> int:
        return sum(1 for name, _ in self.calls if name == method)

    def methods(self) -> dict[str, tuple[str, type[Any], Callable[[Any], Any]]]:
        return {
            "ListKeys": ("KeyService", keys.ListKeysRequest, self.list_keys),
            "GetKey": ("KeyService", keys.GetKeyRequest, self.get_key),
            "Sign": ("SigningService", signing.SignRequest, self.sign),
            "Agree": ("AgreementService", agreement.AgreeRequest, self.agree),
            "Decrypt": ("AgreementService", agreement.DecryptRequest, self.decrypt),
            "GenerateSessionKey": (
                "SessionKeyService",
                sessions.GenerateSessionKeyRequest,
                self.generate,
            ),
            "UnwrapSessionKeys": (
                "SessionKeyService",
                sessions.UnwrapSessionKeysRequest,
                self.unwrap,
            ),
            "RewrapSessionKeys": (
                "SessionKeyService",
                sessions.RewrapSessionKeysRequest,
                self.rewrap,
            ),
            "GetStatus": ("AdminService", admin.GetStatusRequest, self.status),
        }

    # -- keys ------------------------------------------------------------------------------------

    def _key(self, name: str) -> keys.Key:
        if name not in KEYS:
            raise errors.KeyNotFound(f"There is no key {name!r}.", request_id="0" * 32)
        purpose, algorithm, allowed = KEYS[name]
        public = b""
        if name in self.private:
            public = (
                self.private[name]
                .public_key()
                .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            )
        version = keys.KeyVersion(version=1, state="active", public_key=public)
        return keys.Key(
            name=name,
            purpose=purpose,
            algorithm=algorithm,
            algorithms=allowed,
            prehashed=name != "strict",
            versions=[version],
        )

    def list_keys(self, request: Any) -> Any:
        return keys.ListKeysResponse(keys=[self._key(name) for name in sorted(KEYS)])

    def get_key(self, request: Any) -> Any:
        return keys.GetKeyResponse(key=self._key(request.key))

    def status(self, request: Any) -> Any:
        return admin.GetStatusResponse(agent_version="double", uptime_seconds=7)

    # -- operations ------------------------------------------------------------------------------

    def sign(self, request: Any) -> Any:
        results = []
        for item in request.items:
            if len(item.message) > MESSAGE_BYTES:
                error = wire.item_error("MESSAGE_TOO_LARGE", "The message is over 1 MiB.")
                results.append(signing.SignResult(error=error))
            elif item.WhichOneof("input") == "digest" and len(item.digest) != 32:
                error = wire.item_error("DIGEST_LENGTH", "A SHA-256 digest is 32 bytes.")
                results.append(signing.SignResult(error=error))
            else:
                results.append(signing.SignResult(signature=self._signature(request, item)))
        return signing.SignResponse(version=1, results=results)

    def _signature(self, request: Any, item: Any) -> bytes:
        key, algorithm = self.private[request.key], request.algorithm
        if algorithm == "ED25519":
            return bytes(key.sign(item.message))
        digested = item.WhichOneof("input") == "digest"
        hash_ = Prehashed(hashes.SHA256()) if digested else hashes.SHA256()
        data = item.digest if digested else item.message
        if algorithm.startswith("ECDSA"):
            signature = bytes(key.sign(data, ec.ECDSA(hash_)))
            if request.ecdsa_encoding == signing.ECDSA_ENCODING_RAW:
                return b"".join(part.to_bytes(32) for part in decode_dss_signature(signature))
            return signature
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        chosen = pss if "PSS" in algorithm else padding.PKCS1v15()
        return bytes(key.sign(data, chosen, hash_))

    def agree(self, request: Any) -> Any:
        key = self.private[request.key]
        secrets = [
            key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(P256, point))
            for point in request.peer_points
        ]
        results = [agreement.AgreeResult(shared_secret=secret) for secret in secrets]
        return agreement.AgreeResponse(version=1, results=results)

    def decrypt(self, request: Any) -> Any:
        hash_ = HASHES[request.algorithm.removeprefix("RSA_OAEP_")]
        oaep = padding.OAEP(padding.MGF1(hash_), hash_, None)
        results = []
        for ciphertext in request.ciphertexts:
            try:
                plaintext = self.private[request.key].decrypt(ciphertext, oaep)
                results.append(agreement.DecryptResult(plaintext=plaintext))
            except ValueError:
                error = wire.item_error("DECRYPTION_FAILED", "The ciphertext does not decrypt.")
                results.append(agreement.DecryptResult(error=error))
        return agreement.DecryptResponse(version=1, results=results)

    # -- session keys ----------------------------------------------------------------------------

    def generate(self, request: Any) -> Any:
        if KEYS[request.key][0] != "wrap":
            raise errors.KeyPurpose(f"Key {request.key!r} does not wrap.")
        context_hash = contexts.digest(contexts.encode(dict(request.context)))
        session_key = AESGCM.generate_key(256)
        kw = aes_key_wrap(self.wrapping, session_key)
        wrapped = kw + self._tag(request.key, self.newest, context_hash, kw)
        delivered = self._deliver(request, self.newest, context_hash, wrapped, session_key)
        return sessions.GenerateSessionKeyResponse(
            version=self.newest, wrapped_key=wrapped, delivered=delivered, lease=self._lease()
        )

    def unwrap(self, request: Any) -> Any:
        results = []
        context_hash = contexts.digest(contexts.encode(dict(request.context)))
        for wrapped in request.wrapped_keys:
            kw, tag = wrapped[:40], wrapped[40:]
            if compare_digest(tag, self._tag(request.key, request.version, context_hash, kw)):
                key = aes_key_unwrap(self.wrapping, kw)
                delivered = self._deliver(request, request.version, context_hash, wrapped, key)
                results.append(sessions.UnwrapResult(delivered=delivered))
            else:
                error = wire.item_error("WRAPPED_KEY_REJECTED", "Not made for this context.")
                results.append(sessions.UnwrapResult(error=error))
        return sessions.UnwrapSessionKeysResponse(results=results, lease=self._lease())

    def rewrap(self, request: Any) -> Any:
        """One wrapping key for all versions: only the tag tells them apart."""
        results = []
        context_hash = contexts.digest(contexts.encode(dict(request.context)))
        for wrapped in request.wrapped_keys:
            kw, tag = wrapped[:40], wrapped[40:]
            if compare_digest(tag, self._tag(request.key, request.version, context_hash, kw)):
                moved = kw + self._tag(request.key, self.newest, context_hash, kw)
                results.append(sessions.RewrapResult(wrapped_key=moved))
            else:
                error = wire.item_error("WRAPPED_KEY_REJECTED", "Not made for this context.")
                results.append(sessions.RewrapResult(error=error))
        return sessions.RewrapSessionKeysResponse(version=self.newest, results=results)

    def _lease(self) -> Any:
        seconds, messages, size = self.lease
        return {"seconds": seconds, "messages": messages, "bytes": size}

    def _tag(self, name: str, version: int, context_hash: bytes, kw: bytes) -> bytes:
        bound = wrapped_key.binding(1, name, version, context_hash, kw)
        return digest(self.authenticating, bound, "sha256")

    def _deliver(
        self, request: Any, version: int, context_hash: bytes, wrapped: bytes, session_key: bytes
    ) -> Any:
        if self.plain:
            return sessions.DeliveredKey(plain=session_key)
        point = delivery.public_point(self.delivery)
        peer = ec.EllipticCurvePublicKey.from_encoded_point(P256, request.client_point)
        # docs/format.md section 5, from the page rather than from keycustody.formats.delivery.
        name = request.key.encode()
        binding = sha256(
            b"keycustody.delivery.v1\0" + b"\0\1" + point + request.client_point
            + len(name).to_bytes(2) + name + version.to_bytes(4) + context_hash
            + sha256(wrapped).digest()
        ).digest()  # fmt: skip
        shared = self.delivery.exchange(ec.ECDH(), peer)
        ecb = Cipher(algorithms.AES(shared), modes.ECB()).encryptor()  # noqa: S305
        sealed = aes_key_wrap(ecb.update(binding), session_key)
        return sessions.DeliveredKey(sealed=sealed, delivery_point=point)


@contextmanager
def serving(double: AgentDouble, path: Path) -> Iterator[grpc.Server]:
    """Serve `double` on a socket."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=16),
        options=[("grpc.max_receive_message_length", REQUEST_BYTES)],
    )
    lock = threading.Lock()

    def handler(method: str, request_type: type[Any], serve: Callable[[Any], Any]) -> Handler:
        def answer(request: Any, call: grpc.ServicerContext) -> Any:
            with lock:
                double.calls.append((method, request))
            call.add_callback(lambda: double.ended.append(method))
            try:
                response = serve(request)
                return double.tamper.get(method, lambda same: same)(response)
            except errors.KeycustodyError as error:
                call.set_trailing_metadata(wire.trailing_metadata(error))
                call.abort(wire.status_code(error), error.message)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_type.FromString, lambda response: response.SerializeToString()
        )

    by_service: dict[str, dict[str, Handler]] = {}
    for method, (service, request_type, serve) in double.methods().items():
        by_service.setdefault(service, {})[method] = handler(method, request_type, serve)
    for service, handlers in by_service.items():
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"keycustody.v1.{service}", handlers),)
        )
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield server
    finally:
        server.stop(None).wait()
