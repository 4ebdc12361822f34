"""What others do with the same bytes, each behind one shape: messages, and files.

Every peer has its key in memory: what is compared is the bulk encryption, not how the key came.
Each function imports its own library, so that one that is not installed is told and not missed.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

#: As much as is read or given at a time.
BLOCK = 2**20


@dataclass(frozen=True)
class Peer:
    """Encrypts and decrypts messages, and files of any size."""

    encrypt: Callable[[bytes], bytes]
    decrypt: Callable[[bytes], bytes]
    encrypt_file: Callable[[Path, Path], None] | None = None
    decrypt_file: Callable[[Path, Path], None] | None = None


def aes_gcm() -> Peer:
    """AES-256-GCM of the same OpenSSL, in one call: no streaming, no commitment, no header."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(secrets.token_bytes(32))

    def encrypt(data: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, data, None)

    return Peer(encrypt, lambda data: cipher.decrypt(data[:12], data[12:], None))


def cobblestone() -> Peer:
    """Cobblestone-256 alone: the format in our envelopes, without envelope or lease."""
    from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

    key = secrets.token_bytes(32)

    def encrypt(data: bytes) -> bytes:
        cipher = Cobblestone256Encryptor(key, b"")
        return cipher.update(data) + cipher.finalize()

    def decrypt(data: bytes) -> bytes:
        cipher = Cobblestone256Decryptor(key, b"")
        return cipher.update(data) + cipher.finalize()

    return Peer(encrypt, decrypt)


def fernet() -> Peer:
    """Fernet of pyca/cryptography: AES-128-CBC and HMAC, base64."""
    from cryptography.fernet import Fernet

    cipher = Fernet(Fernet.generate_key())
    return Peer(cipher.encrypt, cipher.decrypt)


def tink() -> Peer:
    """Tink: AES256_GCM for messages, AES256_GCM_HKDF_1MB for files."""
    import tink as library
    from tink import aead, streaming_aead

    aead.register()
    streaming_aead.register()
    one = library.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    stream = library.new_keyset_handle(
        streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    ).primitive(streaming_aead.StreamingAead)

    def encrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            with stream.new_encrypting_stream(writer, b"") as encrypting:
                while block := reader.read(BLOCK):
                    encrypting.write(block)

    def decrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            with stream.new_decrypting_stream(reader, b"") as decrypting:
                while block := decrypting.read(BLOCK):
                    writer.write(block)

    return Peer(
        lambda data: one.encrypt(data, b""),
        lambda data: one.decrypt(data, b""),
        encrypt_file,
        decrypt_file,
    )


def tink_envelope() -> Peer:
    """Tink's KmsEnvelopeAead, a data key for each message, over a key service in this process."""
    import tink as library
    from tink import aead

    aead.register()
    templates = aead.aead_key_templates
    local = library.new_keyset_handle(templates.AES256_GCM).primitive(aead.Aead)
    envelope = aead.KmsEnvelopeAead(templates.AES256_GCM, local)
    return Peer(lambda data: envelope.encrypt(data, b""), lambda data: envelope.decrypt(data, b""))


def aws(frame: int = 4096, *, signed: bool = True, cached: bool = False) -> Peer:
    """The AWS Encryption SDK with a raw AES master key."""
    import aws_encryption_sdk as sdk
    from aws_encryption_sdk.identifiers import (
        CommitmentPolicy,
        EncryptionKeyType,
        WrappingAlgorithm,
    )
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    secret = secrets.token_bytes(32)

    class Provider(RawMasterKeyProvider):
        provider_id = "benchmarks"

        def _get_raw_key(self, key_id: str) -> Any:
            return WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=secret,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            )

    provider = Provider()
    provider.add_master_key("key")
    client = sdk.EncryptionSDKClient(
        commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )
    means: dict[str, Any] = {"key_provider": provider}
    if cached:
        materials = sdk.CachingCryptoMaterialsManager(
            master_key_provider=provider,
            cache=sdk.LocalCryptoMaterialsCache(capacity=100),
            max_age=600.0,
            max_messages_encrypted=2**31,
        )
        means = {"materials_manager": materials}
    making: dict[str, Any] = means | {"frame_length": frame}
    if not signed:
        making["algorithm"] = sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def pour(stream: Any, writer: BinaryIO) -> None:
        while block := stream.read(BLOCK):
            writer.write(block)

    def encrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            with client.stream(mode="e", source=reader, **making) as stream:
                pour(stream, writer)

    def decrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            with client.stream(mode="d", source=reader, **means) as stream:
                pour(stream, writer)

    return Peer(
        lambda data: bytes(client.encrypt(source=data, **making)[0]),
        lambda data: bytes(client.decrypt(source=data, **means)[0]),
        encrypt_file,
        decrypt_file,
    )


def age() -> Peer:
    """age, as the Rust implementation behind pyrage does it."""
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    to = [identity.to_public()]
    return Peer(
        lambda data: bytes(pyrage.encrypt(data, to)),
        lambda data: bytes(pyrage.decrypt(data, [identity])),
        lambda source, target: pyrage.encrypt_file(str(source), str(target), to),
        lambda source, target: pyrage.decrypt_file(str(source), str(target), [identity]),
    )


def libsodium() -> Peer:
    """libsodium's secretstream (XChaCha20-Poly1305), in chunks of 64 KiB."""
    from nacl import bindings as sodium

    key = sodium.crypto_secretstream_xchacha20poly1305_keygen()
    more = sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
    last = sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
    chunk, header = 2**16, sodium.crypto_secretstream_xchacha20poly1305_HEADERBYTES
    sealed = chunk + sodium.crypto_secretstream_xchacha20poly1305_ABYTES

    def encrypted(blocks: Iterator[bytes]) -> Iterator[bytes]:
        state = sodium.crypto_secretstream_xchacha20poly1305_state()
        yield sodium.crypto_secretstream_xchacha20poly1305_init_push(state, key)
        for block in blocks:
            tag = more if len(block) == chunk else last
            yield sodium.crypto_secretstream_xchacha20poly1305_push(state, block, tag=tag)

    def decrypted(begin: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
        state = sodium.crypto_secretstream_xchacha20poly1305_state()
        sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, begin, key)
        for block in blocks:
            yield sodium.crypto_secretstream_xchacha20poly1305_pull(state, block)[0]

    def encrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            for block in encrypted(iter(lambda: reader.read(chunk), b"")):
                writer.write(block)

    def decrypt_file(source: Path, target: Path) -> None:
        with source.open("rb") as reader, target.open("wb") as writer:
            begin = reader.read(header)
            for block in decrypted(begin, iter(lambda: reader.read(sealed), b"")):
                writer.write(block)

    def cut(data: bytes, size: int) -> Iterator[bytes]:
        return (data[at : at + size] for at in range(0, len(data), size))

    return Peer(
        lambda data: b"".join(encrypted(cut(data, chunk))),
        lambda data: b"".join(decrypted(data[:header], cut(data[header:], sealed))),
        encrypt_file,
        decrypt_file,
    )


FILE_PEERS: dict[str, Callable[[], Peer]] = {
    "Tink streaming AEAD": tink,
    "AWS Encryption SDK, 4 KiB frames, signed": aws,
    "AWS Encryption SDK, 4 KiB frames, unsigned": lambda: aws(signed=False),
    "AWS Encryption SDK, 64 KiB frames, signed": lambda: aws(65536),
    "AWS Encryption SDK, 64 KiB frames, unsigned": lambda: aws(65536, signed=False),
    "age": age,
    "libsodium secretstream": libsodium,
}
MESSAGE_PEERS: dict[str, Callable[[], Peer]] = {
    "AES-256-GCM alone": aes_gcm,
    "Cobblestone alone": cobblestone,
    "Tink AEAD": tink,
    "Tink KmsEnvelopeAead, local key service": tink_envelope,
    "AWS Encryption SDK, cached materials": lambda: aws(cached=True),
    "Fernet": fernet,
}
