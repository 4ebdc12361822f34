"""What may be asked of a token: one `Protocol` of one method, and the frames that it carries.

Requests and replies are frozen msgspec structs, and they are also the frames on a worker's pipe
(MessagePack, `u32` length before each; see `keycustody.token.frames`). A request names the reply
that answers it: `token.call(Sign(...))` is a `Signed`.

Rules:

* Bytes in, bytes out. Nothing here names a PKCS#11 handle, slot or session.
* Only `Login` and `ChangePin` carry a secret towards the worker, and only an `Outputs` of a
  decryption, an agreement, or a plain delivery carries one back. Their `repr` shows none of it.
* `call` raises errors of `keycustody.errors` only. An item that fails is a `Fault` in its place.

Digest lengths, points and sizes were checked by the caller (`keycustody.custody`); the token side
checks again only what protects the token.
"""

from typing import Annotated, Any, Generic, Protocol, TypeVar, get_args

from msgspec import Meta, Struct

from keycustody.formats.state import Adoption

#: A frame longer than this is refused by both ends: 1,024 items of 1 MiB do not pass in one frame,
#: so the request size limit of the service (see `keycustody.config.Limits`) is below it.
MAX_FRAME_BYTES = 64 * 1024 * 1024

Reply = TypeVar("Reply", covariant=True)  # noqa: PLC0105 (callers read it as "the reply")


class Request(Struct, Generic[Reply], frozen=True, tag_field="op", tag=str):
    """A frame towards a worker; `Reply` is the type of the frame that answers it."""


class Fault(Struct, frozen=True, tag=True):
    """Why one item failed: a code of `keycustody.errors` and its sentence."""

    code: str
    message: str


class KeyRef(Struct, frozen=True):
    """One key version as custody knows it: enough to find it and to refuse an impostor.

    `public_sha256` is the hash of the SubjectPublicKeyInfo that the state record pins, empty for
    `wrap`. The worker serves the key only if the token holds exactly that.
    """

    label: str
    id: bytes
    purpose: str
    algorithm: str
    public_sha256: bytes = b""
    #: Of a `wrap` version: what only its own two keys can have made, 72 bytes each. Empty before it
    #: has one; two agents that recorded one version at once left two, and both must hold.
    witness: bytes = b""
    #: Of a key that was on the token before us: how it may differ from ours.
    adopted: Adoption | None = None


class Secret(Struct, frozen=True):
    """Bytes that no `repr` shows."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"


# -- starting a worker -----------------------------------------------------------------------------


class TokenInfo(Struct, frozen=True, tag=True):
    """The token that was found."""

    label: str
    serial: str
    manufacturer: str
    model: str


class Done(Struct, frozen=True, tag=True):
    """It is done, and there is nothing to tell."""


class Open(Request[TokenInfo], frozen=True):
    """Load the module and find the token by label, serial, or both; no login yet."""

    module: str
    profile: str
    label: str | None = None
    serial: str | None = None


class Login(Request[Done], frozen=True):
    """Log the user in. Sent only under the PIN guard. `again`: the last login with this PIN broke
    off; a token that shows a wrong PIN since is then not given it, which is `PinGuarded`."""

    pin: Secret
    again: bool = False


class ChangePin(Request[Done], frozen=True):
    """Set the PIN of the user who is logged in. A PIN that the token does not take is an
    `InvalidRequest`, and the old one then stays."""

    old: Secret
    new: Secret


# -- using keys ------------------------------------------------------------------------------------


class Outputs(Struct, frozen=True, tag=True):
    """One output an item, in order."""

    items: list[bytes | Fault]

    def __repr__(self) -> str:
        return f"Outputs({len(self.items)} items)"


class Sign(Request[Outputs], frozen=True):
    """Sign digests (whole messages for Ed25519). ECDSA answers r || s."""

    key: KeyRef
    algorithm: str
    inputs: list[bytes]

    def __repr__(self) -> str:
        return f"Sign({self.key!r}, {self.algorithm!r}, {len(self.inputs)} items)"


class Agree(Request[Outputs], frozen=True):
    """ECDH with each uncompressed point; answers x coordinates."""

    key: KeyRef
    points: list[bytes]


class Decrypt(Request[Outputs], frozen=True):
    """RSA-OAEP decryption of each ciphertext."""

    key: KeyRef
    algorithm: str
    ciphertexts: list[bytes]

    def __repr__(self) -> str:
        return f"Decrypt({self.key!r}, {self.algorithm!r}, {len(self.ciphertexts)} items)"


class Recipient(Struct, frozen=True):
    """Who gets session keys, and how: sealed under `delivery` to `client_point`, or, with
    `delivery` None, in clear."""

    client_point: bytes
    delivery: KeyRef | None


class Delivered(Struct, frozen=True, tag=True):
    """A session key for the client: `sealed` and the delivery point, or `plain`."""

    sealed: bytes = b""
    delivery_point: bytes = b""
    plain: bytes = b""

    def __repr__(self) -> str:
        return "Delivered(plain)" if self.plain else "Delivered(sealed)"


class SessionKey(Struct, frozen=True, tag=True):
    """A new session key: wrapped for storage, delivered for use."""

    wrapped: bytes
    delivered: Delivered


class GenerateSessionKey(Request[SessionKey], frozen=True):
    """Make a session key under a `wrap` version, bound to a context."""

    key: KeyRef
    name: str
    version: int
    suite: int
    context_hash: bytes
    recipient: Recipient


class Unwrapped(Struct, frozen=True, tag=True):
    """One delivery an item, in order."""

    items: list[Delivered | Fault]


class UnwrapSessionKeys(Request[Unwrapped], frozen=True):
    """Verify each tag, unwrap, and deliver."""

    key: KeyRef
    name: str
    version: int
    suite: int
    context_hash: bytes
    wrapped: list[bytes]
    recipient: Recipient


class RewrapSessionKeys(Request[Outputs], frozen=True):
    """Verify each tag, unwrap, and wrap for the same context under another version (or the same,
    which gives the same bytes again). Answers wrapped keys; delivers nothing."""

    key: KeyRef
    target: KeyRef
    name: str
    version: int
    target_version: int
    suite: int
    context_hash: bytes
    wrapped: list[bytes]


# -- looking at and provisioning the token ---------------------------------------------------------

AttributeValue = bool | int | str | list[int] | None


class FoundObject(Struct, frozen=True):
    """One private object on the token. `attributes` maps PKCS#11 names without `CKA_` to values;
    what the token does not tell is None. `value` only for data objects."""

    kind: str  # "private", "public", "secret", "data", or "other"
    label: str
    id: bytes
    attributes: dict[str, AttributeValue]
    public_key: bytes = b""  # DER SubjectPublicKeyInfo, for "public"
    application: str = ""
    value: bytes = b""


class Probe(Request[Done], frozen=True):
    """See that the token is still there and the session alive, as cheaply as can be.

    Raises `TokenUnavailable` if not.
    """


class Scanned(Struct, frozen=True, tag=True):
    """Every private object that the logged-in user sees, plus labels of public ones, which are
    never ours and are only reported."""

    objects: list[FoundObject]
    public_labels: list[str]


class Scan(Request[Scanned], frozen=True):
    """List the token's objects."""


class Created(Struct, frozen=True, tag=True):
    """A new version; `public_key` is its SubjectPublicKeyInfo, empty for `wrap`."""

    public_key: bytes


class CreateVersion(Request[Created], frozen=True):
    """Generate the objects of one key version. Never retried: it would make a second one."""

    label: str
    id: bytes
    purpose: str
    algorithm: str


class Witnessed(Struct, frozen=True, tag=True):
    """What a `wrap` version is known by from now on, 72 bytes."""

    witness: bytes


class Witness(Request[Witnessed], frozen=True):
    """Have a `wrap` version make its witness; the token is not changed."""

    key: KeyRef


class SelfTest(Request[Done], frozen=True):
    """Find a key anew, check it, and have it do what it is for on a text of ours; nothing of that
    leaves the worker.

    Raises `KeyNotTrusted` if it does not come out as it must, `KeyNotFound` if it is not there.
    """

    key: KeyRef


class DestroyObjects(Request[Done], frozen=True):
    """Destroy the key objects of one version, by label and `CKA_ID` both; none left is no error.
    State records stay."""

    label: str
    id: bytes


class Inspect(Request[Scanned], frozen=True):
    """List the key objects with one `CKA_ID`, public ones included, which `Scan` leaves out."""

    id: bytes


class WriteData(Request[Done], frozen=True):
    """Create one private, unmodifiable data object."""

    application: str
    label: str
    value: Annotated[bytes, Meta(max_length=4096)]


class Failed(Struct, frozen=True, tag=True):
    """The whole request failed. `cause` (a CKR name) and what to do about it (a name of
    `keycustody.token.remedies`) are for the agent, never for a client."""

    code: str
    message: str
    cause: str = ""
    remedy: str = ""


AnyRequest = (
    Open
    | Login
    | ChangePin
    | Sign
    | Agree
    | Decrypt
    | GenerateSessionKey
    | UnwrapSessionKeys
    | RewrapSessionKeys
    | Probe
    | Scan
    | CreateVersion
    | Witness
    | SelfTest
    | DestroyObjects
    | Inspect
    | WriteData
)
AnyReply = (
    TokenInfo | Done | Outputs | SessionKey | Unwrapped | Scanned | Created | Witnessed | Failed
)

_REPLIES = {kind: get_args(kind.__orig_bases__[0])[0] for kind in get_args(AnyRequest)}


def reply_type(request: Request[Any]) -> type[Struct]:
    """Return the type that answers a request, as its class says."""
    kind: type[Struct] = _REPLIES[type(request)]
    return kind


#: What changes the token: never begun a second time.
NOT_IDEMPOTENT = (Login, ChangePin, CreateVersion, WriteData)


class Token(Protocol):
    """A token that is open and logged in, however many processes that takes."""

    async def call(self, request: Request[Reply], *, timeout: float) -> Reply:
        """Have the request done within `timeout` seconds.

        Raises errors of `keycustody.errors`: `TokenUnavailable`, `DeadlineExceeded`, `Overloaded`,
        `KeyNotTrusted`, `UnsupportedByToken` and those that the request's docstring names.
        """
        ...
