"""The settings themselves: strict, frozen, and without a secret: PINs are named by where they are.

Each limit has its unit in its name and its reason in its description; docs/configuration.md is made
from the same fields.
"""

import fnmatch
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from keycustody.algorithms import KEYS, Purpose, Status, decryption, signature, signatures_for
from keycustody.errors import UnknownAlgorithm

#: Linux's sun_path is 108 bytes with its terminating zero (unix(7)).
SOCKET_PATH_BYTES = 107
SOCKET_NAME = "agent.sock"
#: The operators' principal: always there, serves AdminService, needs no grant and can get none.
ADMIN = "admin"

Operation = Literal["read", "sign", "agree", "decrypt", "generate", "unwrap"]

#: Which purpose an operation needs of a key; `read` fits all.
PURPOSE_OF: Mapping[str, Purpose] = {
    "sign": Purpose.SIGN,
    "agree": Purpose.AGREE,
    "decrypt": Purpose.DECRYPT,
    "generate": Purpose.WRAP,
    "unwrap": Purpose.WRAP,
}

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Pattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*][a-z0-9._*-]{0,63}$")]


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
    """One caller: whoever the kernel lets through to its socket."""

    group: str | None = Field(
        None,
        description="A group whose members may use the socket. Without it, only the agent's own "
        "user may.",
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
                fit = all(signature(name) in signatures_for(key) for name in names)
            elif self.purpose is Purpose.DECRYPT:
                fit = all(decryption(name).family is key.family for name in names)
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

    def allows(self, principal: str, operation: str, key: str) -> bool:
        """Does this grant let the principal do that with the key?"""
        return (
            principal in self.principals
            and operation in self.operations
            and any(fnmatch.fnmatchcase(key, pattern) for pattern in self.keys)
        )


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
        "the agent stops serving.",
    )


class Settings(_Section):
    """The whole file."""

    agent: AgentSettings
    token: TokenSettings
    principals: dict[Name, PrincipalSettings] = Field(default_factory=dict)
    keys: dict[Name, KeySettings] = Field(default_factory=dict)
    grants: tuple[GrantSettings, ...] = ()
    limits: Limits = Field(default_factory=Limits)

    @cached_property
    def socket_names(self) -> tuple[str, ...]:
        """Every principal that gets a socket, the operators' first."""
        return (ADMIN, *self.principals)

    def socket_path(self, principal: str) -> Path:
        """Where that principal's socket is."""
        return self.agent.run_dir / principal / SOCKET_NAME
