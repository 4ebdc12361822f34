"""Clients that ask for everything, keep all that they get, and check it when all is over."""

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import keycustody
from keycustody.errors import KeycustodyError
from keycustody.formats.delivery import public_point
from tests.integration.command import Command
from tests.soak.ledger import Seen

#: Above what an agent needs that kills a hung worker and tries another.
_TIMEOUT_SECONDS = 8.0
#: Envelopes of which a client reads one again.
_RECENT = 50
_WEIGHTS = {"sign": 10, "agree": 3, "decrypt": 3, "generate": 3, "unwrap": 3, "rewrap": 2}


class Client:
    """One client, in a thread of its own."""

    def __init__(self, command: Command, number: int) -> None:
        self._command = command
        self._number = number
        self._random = random.Random(number)
        self._agent = keycustody.connect(socket=command.socket("demo"), timeout=_TIMEOUT_SECONDS)
        peer = self._agent.public_key("meeting")
        mail = self._agent.public_key("mail")
        assert isinstance(peer, ec.EllipticCurvePublicKey)
        assert isinstance(mail, rsa.RSAPublicKey)
        self._peer, self._mail = peer, mail
        self.seen: list[Seen] = []
        #: Messages and their signatures; contexts, plaintexts and envelopes.
        self.signed: list[tuple[bytes, bytes]] = []
        self.sealed: list[tuple[dict[str, str], bytes, bytes]] = []
        #: Answers that were wrong at once.
        self.wrong: list[str] = []

    def run(self, over: threading.Event) -> None:
        """Ask until it is over."""
        asks: dict[str, Callable[[], None]] = {
            "sign": self._sign,
            "agree": self._agree,
            "decrypt": self._decrypt,
            "generate": self._generate,
            "unwrap": self._unwrap,
            "rewrap": self._rewrap,
        }
        while not over.is_set():
            (name,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            asks[name]()
        self._agent.close()

    @contextlib.contextmanager
    def _asking(self, operation: str, mark: str) -> Iterator[None]:
        """Note how the call inside ends; an error of the agent is no error of the soak."""
        begun, code, request = time.monotonic(), "", ""
        try:
            yield
        except KeycustodyError as error:
            code, request = error.code, error.request_id or ""
        except AssertionError as error:
            self.wrong.append(f"{operation}: {error}")
        self.seen.append(Seen(operation, mark, code, request, begun, time.monotonic()))

    def _sign(self) -> None:
        message = self._random.randbytes(48)
        with self._asking("sign", _sha256(message)):
            signature = self._agent.sign("release", message, algorithm="ECDSA_SHA_256")
            self.signed.append((message, signature))

    def _agree(self) -> None:
        ours = ec.generate_private_key(ec.SECP256R1())
        with self._asking("agree", _sha256(public_point(ours))):
            shared = self._agent.agree("meeting", ours.public_key())
            assert shared == ours.exchange(ec.ECDH(), self._peer), "another secret"

    def _decrypt(self) -> None:
        text, sha1 = self._random.randbytes(32), hashes.SHA1()  # noqa: S303 (SoftHSM's OAEP)
        ciphertext = self._mail.encrypt(text, padding.OAEP(padding.MGF1(sha1), sha1, None))
        with self._asking("decrypt", _sha256(ciphertext)):
            opened = self._agent.rsa_decrypt("mail", ciphertext, algorithm="RSA_OAEP_SHA_1")
            assert opened == text, "another plaintext"

    def _generate(self) -> None:
        order = f"{self._number}-{len(self.seen)}"
        text = self._random.randbytes(100)
        with self._asking("generate", order):
            with self._agent.session("vault", context={"order": order}) as session:
                self.sealed.append(({"order": order}, text, session.encrypt(text)))

    def _unwrap(self) -> None:
        if not self.sealed:
            return
        context, text, envelope = self._random.choice(self.sealed[-_RECENT:])
        # Another connection: this one may hold the session key still.
        with keycustody.connect(
            socket=self._command.socket("demo"), timeout=_TIMEOUT_SECONDS
        ) as other:
            with self._asking("unwrap", context["order"]):
                opened = other.decrypt(envelope, key="vault", context=context)
                assert opened == text, "another plaintext"

    def _rewrap(self) -> None:
        if not self.sealed:
            return
        which = self._random.randrange(max(0, len(self.sealed) - _RECENT), len(self.sealed))
        context, text, envelope = self.sealed[which]
        with self._asking("rewrap", context["order"]):
            moved = self._agent.rewrap(envelope, key="vault", context=context)
            self.sealed[which] = (context, text, moved)


def unverified(clients: list[Client], public_keys: list[Any]) -> int:
    """Return how many signatures none of the keys verifies."""

    def verifies(message: bytes, signature: bytes) -> bool:
        for key in public_keys:
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
                return True
        return False

    return sum(not verifies(*pair) for client in clients for pair in client.signed)


def unreadable(clients: list[Client], command: Command) -> int:
    """Return how many envelopes do not give what was encrypted."""

    def is_lost(sealed: tuple[dict[str, str], bytes, bytes]) -> bool:
        context, text, envelope = sealed
        try:
            return agent.decrypt(envelope, key="vault", context=context) != text
        except KeycustodyError:
            return True

    # Together, so that their records share the journal's syncs.
    with command.connect("demo") as agent, ThreadPoolExecutor(16) as together:
        return sum(together.map(is_lost, (one for client in clients for one in client.sealed)))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
