"""Where the agent lives, and its one token."""

from typing import Literal

from pydantic import ByteSize, Field, model_validator

from keycustody.config.fields import PathSetting, Section


class PinSource(Section):
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


class AgentSettings(Section):
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


class TokenSettings(Section):
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
    attempt_seconds: float | None = Field(
        None,
        ge=0.1,
        le=120,
        description="What the token may take for something quick, such as a signature, before its "
        "worker counts as hung, is killed, and the request is tried on another one. The profile's "
        "if not given: 2, for tpm2_pkcs11 10. Other requests get multiples of it.",
    )
    recycle_objects: int = Field(
        1_000_000,
        ge=100,
        le=1_000_000_000,
        description="A worker that has made so many session objects is replaced: modules leak a "
        "little memory with each.",
    )
    recycle_bytes: ByteSize = Field(
        ByteSize(256 * 2**20),
        ge=64 * 2**20,
        le=2**40,
        description="So is one that occupies so much memory, and half as much again as when it was "
        "new.",
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
