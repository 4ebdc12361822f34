"""Settings: one TOML file, strict and frozen.

Unknown members are refused, nothing is converted in silence, and `load` reports every finding at
once, each with the file, the path of the member and what was expected there. Relative paths are
relative to the file's folder. A `Settings` holds no secret: PINs are named by where they are kept.

Each limit has its unit in its name and its reason in its description; docs/configuration.md is
made from the same fields.
"""

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from keycustody.algorithms import KEYS, Purpose, Status, decryption, signature, signatures_for
from keycustody.errors import ConfigInvalid, UnknownAlgorithm
from keycustody.token import profiles

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


def load(path: Path) -> Settings:
    """Read a settings file. Raises `ConfigInvalid`, whose message has a line for each finding."""
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: is not TOML: {error}.") from error
    findings: list[str] = []
    settings: Settings | None = None
    base = path.absolute().parent
    try:
        # Through JSON, because only there strict validation still takes a path from a string.
        document = json.dumps(_expanded(raw, base), default=str)
        settings = Settings.model_validate_json(document, strict=True, context={"base": base})
    except ValidationError as error:
        findings += (_finding(details) for details in error.errors(include_input=False))
    findings += _dangling(raw)
    if settings is not None:
        findings += _unreachable(settings)
    if settings is None or findings:
        raise ConfigInvalid("\n".join(f"{path}: {finding}" for finding in findings))
    return settings


def _expanded(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    """Put the file's folder for {config_dir} in the workers' environment."""
    token = raw.get("token")
    environment = token.get("environment") if isinstance(token, dict) else None
    if not isinstance(token, dict) or not isinstance(environment, dict):
        return raw
    expanded = {
        name: value.replace("{config_dir}", str(base)) if isinstance(value, str) else value
        for name, value in environment.items()
    }
    return raw | {"token": token | {"environment": expanded}}


def _finding(details: Mapping[str, Any]) -> str:
    # pydantic marks the key of a table, as opposed to its value, with a last part "[key]".
    location = ".".join(str(part) for part in details["loc"] if part != "[key]")
    match details["type"]:
        case "extra_forbidden":
            expected = "is not a setting; remove it, or correct its name"
        case "missing":
            expected = "is missing"
        case "value_error":
            expected = str(details["ctx"]["error"])
        case "model_type" | "dict_type" | "model_attributes_type":
            expected = "must be a table"
        case "path_type":
            expected = "must be a path"
        case _:
            expected = re.sub(r"^Input should be ", "must be ", details["msg"])
            expected = expected[0].lower() + expected[1:]
    return f"{location or 'file'}: {expected}."


def _dangling(raw: Mapping[str, Any]) -> Iterator[str]:
    """Find names in grants that nothing declares; works on whatever shape the file has."""
    principals, keys, grants = (raw.get(name) for name in ("principals", "keys", "grants"))
    principals = principals if isinstance(principals, dict) else {}
    keys = keys if isinstance(keys, dict) else {}
    if ADMIN in principals:
        yield f"principals.{ADMIN}: is reserved for operators; choose another name."
    for index, grant in enumerate(grants if isinstance(grants, list) else ()):
        named = grant if isinstance(grant, dict) else {}
        for principal in _strings(named.get("principals")):
            if principal not in principals:
                yield f"grants.{index}.principals: {principal!r} is not declared in principals."
        for pattern in _strings(named.get("keys")):
            if not any(fnmatch.fnmatchcase(str(key), pattern) for key in keys):
                yield f"grants.{index}.keys: {pattern!r} matches no declared key."


def _strings(value: object) -> Iterator[str]:
    yield from (item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _unreachable(settings: Settings) -> Iterator[str]:
    profile = profiles.load(settings.token.profile)
    for name in settings.socket_names:
        length = len(bytes(settings.socket_path(name)))
        if length > SOCKET_PATH_BYTES:
            yield (
                f"agent.run_dir: the socket path {settings.socket_path(name)} has {length} bytes, "
                f"and Linux allows {SOCKET_PATH_BYTES}; choose a shorter folder."
            )
    able = profile.signatures() | profile.decryptions
    for name, key in settings.keys.items():
        if not profile.serves(key.purpose, key.algorithm):
            yield (
                f"keys.{name}.algorithm: a token of profile {profile.name} has no {key.algorithm} "
                f"for {key.purpose.value} (docs/tokens.md)."
            )
        elif missing := sorted(set(key.algorithms or ()) - able):
            yield (
                f"keys.{name}.algorithms: a token of profile {profile.name} has no "
                f"{', '.join(missing)} (docs/tokens.md)."
            )
