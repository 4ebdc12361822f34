"""The settings themselves: strict, frozen, and without a secret: PINs are named by where they are.

Each limit has its unit in its name and its reason in its description; docs/configuration.md is made
from the same fields.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from keycustody.algorithms import KEYS, Purpose, Status, decryption, signature, signatures_for
from keycustody.config.identities import canonical
from keycustody.config.policy import Policy
from keycustody.errors import InvalidContext, UnknownAlgorithm
from keycustody.formats import context as contexts

#: Linux's sun_path is 108 bytes with its terminating zero (unix(7)).
SOCKET_PATH_BYTES = 107
SOCKET_NAME = "agent.sock"
#: The operators' principal: always there, serves AdminService, needs no grant and can get none.
ADMIN = "admin"

#: Which purpose an operation needs of a key; `read` fits all.
PURPOSE_OF: Mapping[str, Purpose] = {
    "sign": Purpose.SIGN,
    "agree": Purpose.AGREE,
    "decrypt": Purpose.DECRYPT,
    "generate": Purpose.WRAP,
    "unwrap": Purpose.WRAP,
    "rewrap": Purpose.WRAP,
}

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
VersionNumber = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9._*-]{0,63}$")]
#: Who a certificate is for, in the one form that `identities` gives it.
Identity = Annotated[str, AfterValidator(canonical)]

Operation = Literal["read", "sign", "agree", "decrypt", "generate", "unwrap", "rewrap"]


def _absolute(path: Path, info: ValidationInfo) -> Path:
    base: Path = info.context["base"] if info.context else Path.cwd()
    return (base / path.expanduser()).resolve()


#: A path; relative ones start at the settings file's folder.
PathSetting = Annotated[Path, AfterValidator(_absolute)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PinSource(_Section):
    """Where a PIN is kept: exactly one of the three."""

    file: PathSetting | None = Field(
        None, description="A file with the PIN alone in it, that only its owner may read."
    )
    credential: str | None = Field(
        None, description="A systemd credential (LoadCredential=, LoadCredentialEncrypted=)."
    )
    prompt: bool = Field(False, description="Ask at the terminal.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "PinSource":
        if sum((self.file is not None, self.credential is not None, self.prompt)) != 1:
            raise ValueError("name exactly one of file, credential, prompt = true")
        return self


class AgentSettings(_Section):
    """Where the agent keeps its state and its sockets."""

    state_dir: PathSetting = Field(
        description="Lock, PIN guard and audit journal. Only the agent's user may open it."
    )
    run_dir: PathSetting = Field(
        description="Sockets: <run_dir>/<principal>/agent.sock, a folder for each principal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is less is not logged (docs/metrics.md)."
    )


class TokenSettings(_Section):
    """The one token of this agent, and how to reach it."""

    profile: Literal["softhsm2", "nss", "opencryptoki", "tpm2_pkcs11", "p11_kit_remote"] = Field(
        description="What the module can do (docs/tokens.md)."
    )
    module: PathSetting = Field(description="The PKCS#11 module, a shared library.")
    label: str | None = Field(
        None, min_length=1, max_length=32, description="The token's label. Never a slot number."
    )
    serial: str | None = Field(
        None, min_length=1, max_length=16, description="Its serial number, besides or instead."
    )
    pin: PinSource = Field(description="Where the user PIN is kept.")
    so_pin: PinSource | None = Field(
        None, description="Where the security officer's PIN is kept; only `token init` needs it."
    )
    workers: int = Field(
        2, ge=1, le=64, description="Processes that use the token; more than cores rarely pays."
    )
    delivery: Literal["sealed", "plain"] = Field(
        "sealed",
        description="How session keys go to clients. `plain` is for tokens that cannot seal, and "
        "needs the client's consent too.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Environment of the worker processes; they get nothing else. "
        "{config_dir} stands for the folder of this file.",
    )

    @model_validator(mode="after")
    def _findable(self) -> "TokenSettings":
        if self.label is None and self.serial is None:
            raise ValueError("name the token by label, by serial, or both")
        return self


class PrincipalSettings(_Section):
    """One caller: whoever the kernel lets through to its socket, or shows a certificate of its."""

    socket: bool = Field(True, description="Does it get a socket of its own in `agent.run_dir`?")
    group: str | None = Field(
        None,
        description="A group whose members may use the socket. Without it, only the agent's own "
        "user may.",
    )
    identities: tuple[Identity, ...] = Field(
        (),
        max_length=64,
        description="Whose certificates are this principal on `[tls]` listeners: SPIFFE IDs "
        "(`spiffe://...`), or typed names (`dns:`, `email:`, `ip:`, `uri:`), each exactly.",
    )


class LeaseSettings(_Section):
    """How long a client should use a session key before it asks again."""

    seconds: int = Field(300, ge=1, le=86_400, description="Its age.")
    messages: int = Field(1_000_000, ge=1, le=2**32, description="Messages and files.")
    bytes: ByteSize = Field(
        ByteSize(2**40),
        ge=1,
        le=2**50,
        description="Plaintext. Far below what the body's format allows (docs/format.md, 6).",
    )


class RateSettings(_Section):
    """How often: a bucket that holds `burst` operations and fills with `per_second` of them."""

    per_second: float = Field(gt=0, le=1_000_000, description="Operations; items of a batch count.")
    burst: int = Field(ge=1, le=1_000_000, description="At once. No batch can be larger.")


class BudgetSettings(_Section):
    """How much: distinct session keys that one principal may unwrap in a sliding window."""

    session_keys: int = Field(ge=1, le=1_000_000, description="Distinct ones in the window.")
    seconds: int = Field(ge=1, le=31 * 86_400, description="The window's length.")


class KeySettings(_Section):
    """One named key."""

    purpose: Purpose = Field(description="The one thing that it is for.")
    algorithm: str = Field(
        "AES_256_HMAC_SHA_256",
        description="What it is; `wrap` keys need not say.",
    )
    algorithms: tuple[str, ...] | None = Field(
        None,
        description="What a request may name, the default first; without it, all that fit.",
    )
    prehashed: bool = Field(
        False,
        description="May callers send a digest instead of the message? The agent then cannot know "
        "what it signs. Signing large files needs it.",
    )
    lease: LeaseSettings = Field(default_factory=LeaseSettings, description="Of session keys.")
    owner: str = Field(
        "", max_length=200, description="Who answers for it: a team, a person, an address."
    )
    rotation_days: int | None = Field(
        None,
        ge=1,
        le=3650,
        description="How old its newest version may be; `keys rotate --due` makes the next one.",
    )
    old_versions: Literal["retire", "keep"] = Field(
        "retire",
        description="What `apply` and `rotate` do with a version once a newer one has served for "
        "`overlap_seconds`: retire it (verify, unwrap and decrypt only), or leave it active.",
    )
    overlap_seconds: int = Field(
        86_400,
        ge=0,
        le=366 * 86_400,
        description="How long an old version stays active beside a newer one.",
    )
    destroy_wait_days: int = Field(
        7, ge=0, le=3650, description="How long a version is revoked before it can be destroyed."
    )
    states: dict[VersionNumber, Literal["retired", "revoked", "destroyed"]] = Field(
        default_factory=dict,
        description="States of versions that hold whatever the token says; the worst wins. For "
        "tokens without data objects, and after a token was restored from an old backup.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "KeySettings":
        key = KEYS.get(self.algorithm)
        if key is None:
            raise ValueError(f"algorithm must be one of {', '.join(sorted(KEYS))}")
        if key.status is Status.FORBIDDEN:
            raise ValueError(f"algorithm {key.name} is forbidden")
        if self.purpose not in key.purposes:
            fitting = ", ".join(k.name for k in KEYS.values() if self.purpose in k.purposes)
            raise ValueError(f"purpose {self.purpose.value} needs algorithm to be one of {fitting}")
        if self.algorithms is not None:
            self._named_algorithms_fit(self.algorithms)
        if self.prehashed and (self.purpose is not Purpose.SIGN or key.name == "ED25519"):
            raise ValueError("prehashed is for ECDSA and RSA keys of purpose sign")
        return self

    def _named_algorithms_fit(self, names: tuple[str, ...]) -> None:
        key = KEYS[self.algorithm]
        try:
            if self.purpose is Purpose.SIGN:
                fit = all(
                    signature(name) in signatures_for(key) and signature(name).status.protects
                    for name in names
                )
            elif self.purpose is Purpose.DECRYPT:
                fit = all(
                    decryption(name).family is key.family
                    and decryption(name).status is not Status.FORBIDDEN
                    for name in names
                )
            else:
                fit = False
        except UnknownAlgorithm as error:
            raise ValueError(error.message) from error
        if not fit or not names or len(set(names)) != len(names):
            raise ValueError(
                f"algorithms must name, once each, what a {key.name} key for "
                f"{self.purpose.value} can do"
            )


class GrantSettings(_Section):
    """What some principals may do with some keys. What no grant allows is denied."""

    name: Name | None = Field(None, description="For the audit record; else its number.")
    principals: tuple[Name, ...] = Field(min_length=1, description="Who.")
    keys: tuple[Pattern, ...] = Field(
        min_length=1, description="Which keys: names, or patterns with `*`."
    )
    operations: tuple[Operation, ...] = Field(min_length=1, description="What.")
    context: dict[str, str] = Field(
        default_factory=dict,
        description="Pairs that a session key's context must hold, each exactly; `{principal}` in "
        "a value stands for who asks. The context may hold more.",
    )
    not_before: AwareDatetime | None = Field(None, description="Allows nothing before that time.")
    not_after: AwareDatetime | None = Field(None, description="Allows nothing after that time.")
    rate: RateSettings | None = Field(None, description="How often, for each principal.")
    budgets: tuple[BudgetSettings, ...] = Field(
        (), max_length=8, description="How many session keys, for each principal; all must hold."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "GrantSettings":
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before must be before not_after")
        if (self.rate or self.budgets) and self.name is None:
            raise ValueError("a grant with rate or budgets needs a name, under which it is counted")
        if self.context and not set(self.operations) <= {"generate", "unwrap", "rewrap"}:
            raise ValueError("context is for generate, unwrap and rewrap; grant others apart")
        try:
            contexts.encode(self.context)
        except InvalidContext as error:
            raise ValueError(error.message) from error
        if self.budgets and "unwrap" not in self.operations:
            raise ValueError("budgets are for unwrap, which this grant does not allow")
        if len({budget.seconds for budget in self.budgets}) != len(self.budgets):
            raise ValueError("budgets must each have a window of another length")
        return self

    def covers(self, key: str) -> bool:
        """Is this grant about that key?"""
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.keys)


class Limits(_Section):
    """What one request may cost. Over a limit, it is refused before the token sees it."""

    message_bytes: ByteSize = Field(
        ByteSize(2**20),
        ge=1024,
        le=16 * 2**20,
        description="One message to sign. Larger ones are hashed by the client.",
    )
    request_bytes: ByteSize = Field(
        ByteSize(8 * 2**20),
        ge=64 * 2**10,
        le=32 * 2**20,
        description="One request on the wire; below the pipe's own limit of 64 MiB.",
    )
    items: int = Field(1024, ge=1, le=4096, description="Items of one request.")
    deadline_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="The longest that a request may take, also when the client allows more.",
    )
    queue: int = Field(
        10_000, ge=1, le=100_000, description="Requests that wait for a worker; more are refused."
    )
    scan_seconds: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="Time between scans of the token. After three intervals without a good scan, "
        "the agent stops serving. A revocation by another agent takes effect within one.",
    )
    self_test_seconds: float = Field(
        300.0, ge=1, le=86_400, description="Time between self-tests of every key."
    )


class AuditSettings(_Section):
    """The journal in `agent.state_dir`."""

    rotate_bytes: ByteSize = Field(
        ByteSize(256 * 2**20),
        ge=4096,
        le=2**40,
        description="A file that is this large is followed by a new one.",
    )
    head_records: int = Field(
        1000, ge=1, le=1_000_000, description="The head is signed after so many records."
    )
    head_seconds: float = Field(
        60.0, ge=0.1, le=86_400, description="And so long after a record that no head covers yet."
    )
    denials: RateSettings = Field(
        default_factory=lambda: RateSettings(per_second=1, burst=20),
        description="Denials of one principal that get a record each; more are counted, and get "
        "one together.",
    )


def _listening(address: str, info: ValidationInfo) -> str:
    """Return where to listen in gRPC's words: `HOST:PORT`, or `unix:` and an absolute path."""
    kind, _, path = address.partition(":")
    if kind == "unix" and path:
        return f"unix:{_absolute(Path(path), info)}"
    found = _HOST_PORT.fullmatch(address)
    if found is None or not 1 <= int(found["port"]) <= _MAX_PORT:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    if found["ipv6"] is not None:
        ipaddress.IPv6Address(found["ipv6"])
    return address


_MAX_PORT = 65_535
_HOST_PORT = re.compile(
    r"(\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?))"
    r":(?P<port>[0-9]{1,5})"
)


class TlsSettings(_Section):
    """Listeners with mutual TLS 1.3. The files are read again when they change."""

    listen: tuple[Annotated[str, AfterValidator(_listening)], ...] = Field(
        min_length=1,
        max_length=16,
        description="Where: `HOST:PORT`, `[IPV6]:PORT`, or `unix:PATH`.",
    )
    certificate: PathSetting = Field(
        description="The agent's certificate, PEM, and what is between it and its authority. It "
        "needs a DNS name, or clients refuse it."
    )
    key: PathSetting = Field(description="Its private key, PEM; only the agent's user may read it.")
    client_ca: PathSetting = Field(
        description="Authorities whose certificates identify callers, PEM."
    )
    crl: PathSetting | None = Field(
        None, description="Their revocation lists, PEM. One that expired lets nobody in."
    )


class MetricsSettings(_Section):
    """Where Prometheus may ask: exactly one of the two."""

    socket: PathSetting | None = Field(None, description="A Unix socket, for the agent's group.")
    address: str | None = Field(
        None,
        pattern=r"^(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}$",
        description="A loopback address and port.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "MetricsSettings":
        if (self.socket is None) == (self.address is None):
            raise ValueError("name exactly one of socket, address")
        return self


class Settings(_Section):
    """The whole file."""

    agent: AgentSettings
    token: TokenSettings
    principals: dict[Name, PrincipalSettings] = Field(default_factory=dict)
    keys: dict[Name, KeySettings] = Field(default_factory=dict)
    grants: tuple[GrantSettings, ...] = ()
    limits: Limits = Field(default_factory=Limits)
    policy: PathSetting | None = Field(
        None, description="The cryptographic policy (docs/policy.md), a TOML file of its own."
    )
    audit: AuditSettings = Field(default_factory=AuditSettings)
    tls: TlsSettings | None = None
    metrics: MetricsSettings | None = None

    #: What the file that `policy` names says; `load` reads it.
    _crypto: Policy | None = PrivateAttr(None)

    @property
    def crypto(self) -> Policy | None:
        """The cryptographic policy, if the settings name one."""
        return self._crypto

    def with_policy(self, policy: Policy | None) -> "Settings":
        """Return the same settings under a policy."""
        changed = self.model_copy()
        changed._crypto = policy
        return changed

    @cached_property
    def socket_names(self) -> tuple[str, ...]:
        """Every principal that gets a socket, the operators' first."""
        return (ADMIN, *(name for name, who in self.principals.items() if who.socket))

    def socket_path(self, principal: str) -> Path:
        """Where that principal's socket is."""
        return self.agent.run_dir / principal / SOCKET_NAME
