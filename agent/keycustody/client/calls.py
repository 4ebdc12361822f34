"""Each RPC described once: what is asked, and what its answer means. No I/O.

A `Call` is a value: method path, request, the response's type, and `result`, which turns a response
into what the caller wants or raises an error of `keycustody.errors`. A driver sends it, with a
deadline. A `Flow` is a generator that yields steps and is sent their results: a `Call`, a `Wait`
for what another thread or task already asked, or a `Beside`, a flow that goes on by itself. Whoever
runs a flow needs twenty lines (see `keycustody.client.sync`), with or without `await`.

Rules:

* An answer is not believed: a wrong number of results, an empty result or a missing field is an
  `InternalError`, a session key that does not belong to the request is a `DeliveryRejected`.
* A call whose repetition changes nothing is `idempotent`; gRPC may send it again (`RETRYABLE`).
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from keycustody import wire
from keycustody.client import values
from keycustody.client.delivery import Receiver, SecretKey, Terms
from keycustody.client.leases import Lease
from keycustody.errors import InternalError, KeycustodyError
from keycustody.formats.suites import SUITE_1, WRAPPED_BYTES
from keycustody.v1 import (
    admin_service_pb2 as admin,
)
from keycustody.v1 import (
    agreement_service_pb2 as agreement,
)
from keycustody.v1 import (
    common_pb2 as common,
)
from keycustody.v1 import (
    key_service_pb2 as keys,
)
from keycustody.v1 import (
    session_key_service_pb2 as sessions,
)
from keycustody.v1 import (
    signing_service_pb2 as signing,
)

R = TypeVar("R")
#: What became of one item: bytes, or why there are none.
Outcome: TypeAlias = bytes | KeycustodyError

#: Methods that gRPC may send again by itself. GenerateSessionKey is not: each makes another key.
RETRYABLE: Final = (
    ("keycustody.v1.KeyService", "ListKeys"),
    ("keycustody.v1.KeyService", "GetKey"),
    ("keycustody.v1.SigningService", "Sign"),
    ("keycustody.v1.AgreementService", "Agree"),
    ("keycustody.v1.AgreementService", "Decrypt"),
    ("keycustody.v1.SessionKeyService", "UnwrapSessionKeys"),
    ("keycustody.v1.SessionKeyService", "RewrapSessionKeys"),
    ("keycustody.v1.AdminService", "GetStatus"),
)


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One RPC. `service` is the full name; `result` takes a `response` and returns or raises."""

    service: str
    method: str
    # A message to sign, or a ciphertext, is nobody's business in a traceback.
    request: Message = field(repr=False)
    response: type[Message]
    result: Callable[[Any], R] = field(repr=False)

    @property
    def path(self) -> str:
        """The path that gRPC wants."""
        return f"/{self.service}/{self.method}"

    @property
    def idempotent(self) -> bool:
        """May it be sent again when it is not known whether it took effect?"""
        return (self.service, self.method) in RETRYABLE


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `future` is done, whatever its outcome; it never takes longer than one call."""

    future: "Future[None]"


@dataclass(frozen=True, slots=True)
class Beside:
    """Run `flow` in a thread or task of its own, and go on at once. It raises no `KeycustodyError`.

    A driver takes its first step before it lets go of it, and closes it if it cannot go on: what
    the flow promised to others is then given up.
    """

    flow: "Flow[None]" = field(repr=False)


Step: TypeAlias = Call[Any] | Wait | Beside
Flow: TypeAlias = Generator[Step, Any, R]


def ask(call: Call[R]) -> Flow[R]:
    """Yield one call and return its result; it only tells the type checker which that is."""
    result: R = yield call
    return result


# -- keys ------------------------------------------------------------------------------------------


def list_keys() -> Call[list[values.KeyInfo]]:
    """The keys that the caller may see."""

    def result(response: keys.ListKeysResponse) -> list[values.KeyInfo]:
        return [values.key_info(key) for key in response.keys]

    return Call(
        "keycustody.v1.KeyService",
        "ListKeys",
        keys.ListKeysRequest(),
        keys.ListKeysResponse,
        result,
    )


def get_key(name: str) -> Call[values.KeyInfo]:
    """One key and its public halves."""

    def result(response: keys.GetKeyResponse) -> values.KeyInfo:
        if response.key.name != name:
            raise InternalError("The agent answered with another key than was asked for.")
        return values.key_info(response.key)

    return Call(
        "keycustody.v1.KeyService",
        "GetKey",
        keys.GetKeyRequest(key=name),
        keys.GetKeyResponse,
        result,
    )


def get_status() -> Call[values.Status]:
    """How the agent, its token and its keys are."""
    return Call(
        "keycustody.v1.AdminService",
        "GetStatus",
        admin.GetStatusRequest(),
        admin.GetStatusResponse,
        values.status,
    )


def reload() -> Call[values.Reloaded]:
    """Have the agent follow its settings file."""
    return Call(
        "keycustody.v1.AdminService",
        "Reload",
        admin.ReloadRequest(),
        admin.ReloadResponse,
        lambda answer: values.Reloaded(answer.rules, tuple(answer.waiting)),
    )


def change_keys(request: admin.ChangeKeysRequest) -> Call[values.KeyReport]:
    """A change to the keys on the token, for operators."""
    return Call(
        "keycustody.v1.AdminService",
        "ChangeKeys",
        request,
        admin.ChangeKeysResponse,
        values.key_report,
    )


# -- signing, agreement, decryption ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignInput:
    """One thing to sign: a whole message, or its digest."""

    data: bytes = field(repr=False)
    prehashed: bool = False

    def to_item(self) -> signing.SignItem:
        """The item on the wire."""
        if self.prehashed:
            return signing.SignItem(digest=self.data)
        return signing.SignItem(message=self.data)


def sign(
    name: str, algorithm: str, items: Sequence[SignInput], *, raw: bool, version: int
) -> Call[list[Outcome]]:
    """Sign up to 1,024 items; `raw` makes ECDSA answer r || s. `version` 0 is the newest."""
    encoding = signing.ECDSA_ENCODING_RAW if raw else signing.ECDSA_ENCODING_UNSPECIFIED
    request = signing.SignRequest(
        key=name,
        version=version,
        algorithm=algorithm,
        ecdsa_encoding=encoding,
        items=[item.to_item() for item in items],
    )

    def result(response: signing.SignResponse) -> list[Outcome]:
        return _outcomes(response.results, len(items), "signature")

    return Call("keycustody.v1.SigningService", "Sign", request, signing.SignResponse, result)


def agree(name: str, points: Sequence[bytes], *, version: int) -> Call[list[Outcome]]:
    """Agree with up to 1,024 peers, by their uncompressed points."""
    request = agreement.AgreeRequest(key=name, version=version, peer_points=points)

    def result(response: agreement.AgreeResponse) -> list[Outcome]:
        return _outcomes(response.results, len(points), "shared_secret")

    return Call("keycustody.v1.AgreementService", "Agree", request, agreement.AgreeResponse, result)


def decrypt(
    name: str, algorithm: str, ciphertexts: Sequence[bytes], *, version: int
) -> Call[list[Outcome]]:
    """Decrypt up to 1,024 RSA-OAEP ciphertexts."""
    request = agreement.DecryptRequest(
        key=name, version=version, algorithm=algorithm, ciphertexts=ciphertexts
    )

    def result(response: agreement.DecryptResponse) -> list[Outcome]:
        return _outcomes(response.results, len(ciphertexts), "plaintext")

    return Call(
        "keycustody.v1.AgreementService", "Decrypt", request, agreement.DecryptResponse, result
    )


def _outcomes(results: Sequence[Any], expected: int, kind: str) -> list[Outcome]:
    if len(results) != expected:
        raise InternalError(f"The agent answered {len(results)} results to {expected} items.")
    return [_outcome(result, kind) for result in results]


def _outcome(result: Any, kind: str) -> Outcome:
    which = result.WhichOneof("result")
    if which == kind:
        value: bytes = getattr(result, kind)
        return value
    if which == "error":
        return wire.from_item_error(result.error)
    raise InternalError("The agent answered an item with neither a result nor an error.")


# -- session keys ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewSessionKey:
    """What GenerateSessionKey gave: the key, its wrapped form and how long to use it."""

    version: int
    wrapped: bytes
    key: SecretKey
    lease: Lease


def generate(
    name: str, context: Mapping[str, str], context_hash: bytes, *, terms: Terms
) -> Call[NewSessionKey]:
    """Ask for a session key for one context. A new ephemeral key is made for each call."""
    receiver = Receiver.new(terms)
    request = sessions.GenerateSessionKeyRequest(
        key=name,
        suite=SUITE_1,
        context=context,
        client_point=receiver.point,
        accept_plain=terms.accept_plain,
    )

    def result(response: sessions.GenerateSessionKeyResponse) -> NewSessionKey:
        key = receiver.open(
            response.delivered, name, response.version, context_hash, response.wrapped_key
        )
        return NewSessionKey(response.version, response.wrapped_key, key, _lease(response.lease))

    return Call(
        "keycustody.v1.SessionKeyService",
        "GenerateSessionKey",
        request,
        sessions.GenerateSessionKeyResponse,
        result,
    )


def unwrap(
    name: str,
    version: int,
    context: Mapping[str, str],
    context_hash: bytes,
    wrapped: bytes,
    *,
    terms: Terms,
) -> Call[tuple[SecretKey, Lease]]:
    """Ask for a session key that was generated earlier."""
    receiver = Receiver.new(terms)
    request = sessions.UnwrapSessionKeysRequest(
        key=name,
        version=version,
        suite=SUITE_1,
        context=context,
        wrapped_keys=[wrapped],
        client_point=receiver.point,
        accept_plain=terms.accept_plain,
    )

    def result(response: sessions.UnwrapSessionKeysResponse) -> tuple[SecretKey, Lease]:
        if len(response.results) != 1:
            raise InternalError(f"The agent answered {len(response.results)} results to 1 item.")
        answer = response.results[0]
        if answer.WhichOneof("result") == "error":
            raise wire.from_item_error(answer.error)
        key = receiver.open(answer.delivered, name, version, context_hash, wrapped)
        return key, _lease(response.lease)

    return Call(
        "keycustody.v1.SessionKeyService",
        "UnwrapSessionKeys",
        request,
        sessions.UnwrapSessionKeysResponse,
        result,
    )


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of each wrapped key, in order, and the version that wraps them now."""

    version: int
    outcomes: Sequence[Outcome]


def rewrap(
    name: str, version: int, context: Mapping[str, str], wrapped: Sequence[bytes]
) -> Call[Rewrapped]:
    """Have up to 1,024 session keys wrapped under the newest version, for the same context."""
    request = sessions.RewrapSessionKeysRequest(
        key=name, version=version, suite=SUITE_1, context=context, wrapped_keys=wrapped
    )

    def result(response: sessions.RewrapSessionKeysResponse) -> Rewrapped:
        outcomes = _outcomes(response.results, len(wrapped), "wrapped_key")
        if response.version < version and any(isinstance(one, bytes) for one in outcomes):
            raise InternalError(
                f"The agent wrapped session keys of version {version} under version "
                f"{response.version}, which is older."
            )
        for outcome in outcomes:
            if isinstance(outcome, bytes) and len(outcome) != WRAPPED_BYTES:
                raise InternalError("The agent answered with a wrapped key of a wrong length.")
        return Rewrapped(response.version, outcomes)

    return Call(
        "keycustody.v1.SessionKeyService",
        "RewrapSessionKeys",
        request,
        sessions.RewrapSessionKeysResponse,
        result,
    )


def _lease(lease: common.Lease) -> Lease:
    return Lease(lease.seconds, lease.messages, lease.bytes)
