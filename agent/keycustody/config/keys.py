"""Keys: what each is for, how long a version lives, and how long clients use its session keys."""

from typing import Literal

from pydantic import ByteSize, Field, model_validator

from keycustody.algorithms import KEYS, Purpose, Status, decryption, signature, signatures_for
from keycustody.config.fields import Section, VersionNumber
from keycustody.errors import UnknownAlgorithm


class LeaseSettings(Section):
    """How long a client should use a session key before it asks again."""

    seconds: int = Field(300, ge=1, le=86_400, description="Its age.")
    messages: int = Field(1_000_000, ge=1, le=2**32, description="Messages and files.")
    bytes: ByteSize = Field(
        ByteSize(2**40),
        ge=1,
        le=2**50,
        description="Plaintext. Far below what the body's format allows (docs/format.md, 6).",
    )


class KeySettings(Section):
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
