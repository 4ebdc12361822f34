"""No path lets an operation happen without its record: not on a full disk, not by kill -9."""

import contextlib
import hashlib
import itertools
import resource
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message

from keycustody.errors import KeycustodyError
from keycustody.formats import envelope
from keycustody.formats.suites import SUITE_1
from keycustody.v1 import admin_service_pb2 as admin
from keycustody.v1 import agreement_service_pb2 as agreements
from keycustody.v1 import key_service_pb2 as keys
from keycustody.v1 import session_key_service_pb2 as sessions
from keycustody.v1 import signing_service_pb2 as signatures
from tests.integration.agent.raw import ADMIN_METHODS, METHODS, channel, code_of, send
from tests.integration.command import FEW_KEYS, Command, prepare, running
from tests.integration.versions import until

# Each test ends an agent.
pytestmark = pytest.mark.slow

MORE = """
[keys.invoices]
purpose = "wrap"
[keys.peers]
purpose = "agree"
algorithm = "EC_P256"
[keys.inbox]
purpose = "decrypt"
algorithm = "RSA_2048"
[[grants]]
principals = ["demo"]
keys = ["*"]
operations = ["agree", "decrypt", "generate", "unwrap", "rewrap"]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Keys of every purpose, and no agent."""
    command = prepare(tmp_path_factory.mktemp("un"))
    command.config.write_text(FEW_KEYS + MORE)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


@contextmanager
def no_room(command: Command) -> Iterator[None]:
    """The kernel lets the agent's files grow no more: as on a full disk, for this process alone."""
    agent = psutil.Process(command.agent_pid())
    (journal,) = (command.folder / "var/state").glob("audit-*.jsonl")
    limit = agent.rlimit(psutil.RLIMIT_FSIZE)
    agent.rlimit(psutil.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        agent.rlimit(psutil.RLIMIT_FSIZE, limit)


def requests(command: Command) -> dict[str, Message]:
    """A request to every method there is, which would succeed if there were room."""
    with command.connect("demo") as agent, agent.session("invoices") as session:
        header, _ = envelope.parse(session.encrypt(b"x"))
        inbox = agent.public_key("inbox")
    assert isinstance(inbox, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(SHA1()), SHA1(), None)  # noqa: S303 (SoftHSM has no other)
    point = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    wrapped: dict[str, Any] = {
        "key": "invoices",
        "version": 1,
        "suite": SUITE_1,
        "wrapped_keys": [header.wrapped_key],
    }
    made: dict[str, Message] = {
        "KeyService/ListKeys": keys.ListKeysRequest(),
        "KeyService/GetKey": keys.GetKeyRequest(key="release"),
        "SigningService/Sign": signatures.SignRequest(
            key="release",
            algorithm="ECDSA_SHA_256",
            items=[signatures.SignItem(message=b"x")],
        ),
        "AgreementService/Agree": agreements.AgreeRequest(key="peers", peer_points=[point]),
        "AgreementService/Decrypt": agreements.DecryptRequest(
            key="inbox", algorithm="RSA_OAEP_SHA_1", ciphertexts=[inbox.encrypt(b"x", oaep)]
        ),
        "SessionKeyService/GenerateSessionKey": sessions.GenerateSessionKeyRequest(
            key="invoices", suite=SUITE_1, client_point=point
        ),
        "SessionKeyService/UnwrapSessionKeys": sessions.UnwrapSessionKeysRequest(
            **wrapped, client_point=point
        ),
        "SessionKeyService/RewrapSessionKeys": sessions.RewrapSessionKeysRequest(**wrapped),
        "AdminService/GetStatus": admin.GetStatusRequest(),
        "AdminService/ChangeKeys": admin.ChangeKeysRequest(rotate=admin.RotateKeys(key="release")),
        "AdminService/Reload": admin.ReloadRequest(),
    }
    return {f"/keycustody.v1.{method}": request for method, request in made.items()}


def test_what_cannot_be_recorded_is_not_done(own: Command) -> None:
    with running(own), channel(own.socket("demo")) as demo, channel(own.socket("admin")) as boss:
        asked = requests(own)
        assert asked.keys() == set(METHODS)

        def ask(method: str) -> bytes:
            opened = boss if method in ADMIN_METHODS else demo
            return send(opened, method, asked[method].SerializeToString())

        before = own.records()
        with no_room(own):
            for method in asked:
                with pytest.raises(grpc.RpcError) as caught:
                    ask(method)
                assert code_of(caught.value)[1] == "AUDIT_UNAVAILABLE", method
        assert own.records() == before
        # Nor has the token got another version, and service resumed.
        with own.connect("demo") as agent:
            assert [one.version for one in agent.key("release").versions] == [1]
        for method in asked:
            assert ask(method)
        assert {one["result"] for one in own.records()[len(before) :]} == {"OK"}
    own.ok("audit", "verify", "--config", own.config)


def test_what_was_answered_before_a_kill_9_is_on_record(own: Command) -> None:
    answered: list[bytes] = []

    def load(name: str) -> None:
        with own.connect("demo") as agent, contextlib.suppress(KeycustodyError):
            for number in itertools.count():
                message = f"{name} {number}".encode()
                agent.sign("release", message, algorithm="ECDSA_SHA_256")
                answered.append(message)

    def enough(wanted: int) -> bool:
        return len(answered) >= wanted

    for wanted in (200, 400, 600):
        with running(own) as agent:
            threads = [threading.Thread(target=load, args=(secrets.token_hex(4),)) for _ in "1234"]
            for thread in threads:
                thread.start()
            until(partial(enough, wanted))
            agent.kill()
            for thread in threads:
                thread.join()
    recorded = {item for one in own.records() for item in one["items"]}
    assert {f"{hashlib.sha256(message).hexdigest()}:OK" for message in answered} <= recorded
    own.ok("audit", "verify", "--config", own.config)
