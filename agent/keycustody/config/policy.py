"""The cryptographic policy: a TOML file of its own, strict and frozen like the settings.

A security team owns it; many settings files may name one. What it does not permit is not permitted:
a purpose without a table has no keys. It says nothing about who may do what (that is `grants`).
docs/policy.md lists every member from these fields.
"""

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from keycustody.algorithms import DECRYPTIONS, KEYS, SIGNATURES, Purpose, Status
from keycustody.config.findings import EXCEPTED

#: A declared key's name, as in the settings.
KeyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sentence = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"\S")
]


def _excepted(rule: str) -> str:
    if rule not in EXCEPTED:
        raise ValueError(f"must be one of {', '.join(EXCEPTED)}")
    return rule


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PurposePolicy(_Part):
    """What keys of one purpose may be."""

    keys: tuple[str, ...] = Field(description="Permitted `keys.NAME.algorithm`, and so sizes.")
    lifetime_days: int = Field(
        ge=1,
        le=36_500,
        description="How old a version may be and still sign, agree, or make session keys. It may "
        "verify, decrypt and unwrap for ever. `rotation_days` may not be longer.",
    )


class SignPolicy(PurposePolicy):
    """What `sign` keys may be, and do."""

    algorithms: tuple[str, ...] = Field(description="Signatures that requests may name.")
    prehashed: bool = Field(
        False, description="May a key take digests, so that the agent cannot know what it signs?"
    )


class DecryptPolicy(PurposePolicy):
    """What `decrypt` keys may be, and do."""

    algorithms: tuple[str, ...] = Field(description="Decryptions that requests may name.")


class WrapPolicy(PurposePolicy):
    """What `wrap` keys may be, and how their session keys are given away."""

    lease_seconds: int = Field(
        3600, ge=1, le=86_400, description="The longest `lease.seconds` of a key."
    )
    require_context: bool = Field(
        False, description="Must each grant on session keys require some context?"
    )
    require_budget: bool = Field(False, description="Must each grant of unwrap have a budget?")


class ExceptionPolicy(_Part):
    """What one key need not obey, for a while, and why."""

    key: KeyName = Field(description="The key, by its name; no patterns.")
    rule: Annotated[str, AfterValidator(_excepted)] = Field(
        description="The rule's id; one that can have exceptions."
    )
    reason: Sentence = Field(description="Why it must be so for now.")
    approver: Sentence = Field(description="Who said so.")
    expires: date = Field(description="The last day, in UTC, on which it counts.")


class Policy(_Part):
    """The whole file."""

    minimum_status: Literal["preferred", "acceptable"] = Field(
        "acceptable",
        description="The least status of what protects something new. `legacy` algorithms never "
        "do, and `forbidden` ones are not served at all.",
    )
    require_owner: bool = Field(True, description="Must each key say who answers for it?")
    require_rotation: bool = Field(True, description="Must each key have a `rotation_days`?")
    longest_exception_days: int = Field(
        365, ge=1, le=3650, description="How far ahead an exception may end."
    )
    sign: SignPolicy | None = Field(None, description="Without it, no key may be for that.")
    agree: PurposePolicy | None = Field(None, description="Likewise.")
    decrypt: DecryptPolicy | None = Field(None, description="Likewise.")
    wrap: WrapPolicy | None = Field(None, description="Likewise.")
    exceptions: tuple[ExceptionPolicy, ...] = Field((), description="See below.")

    def of(self, purpose: Purpose) -> PurposePolicy | None:
        """What keys of a purpose may be; None if there may be none."""
        match purpose:
            case Purpose.SIGN:
                return self.sign
            case Purpose.AGREE:
                return self.agree
            case Purpose.DECRYPT:
                return self.decrypt
            case Purpose.WRAP:
                return self.wrap

    @model_validator(mode="after")
    def _known(self) -> "Policy":
        for purpose in Purpose:
            table = self.of(purpose)
            fitting = (
                key.name
                for key in KEYS.values()
                if purpose in key.purposes and key.status is not Status.FORBIDDEN
            )
            _check_names(f"{purpose.value}.keys", table.keys if table else (), fitting)
        _check_names(
            "sign.algorithms", self.sign.algorithms if self.sign else (), _usable_to_sign()
        )
        _check_names(
            "decrypt.algorithms",
            self.decrypt.algorithms if self.decrypt else (),
            (entry.name for entry in DECRYPTIONS.values() if entry.status is not Status.FORBIDDEN),
        )
        named = [(exception.key, exception.rule) for exception in self.exceptions]
        for key, rule in named:
            if named.count((key, rule)) > 1:
                raise ValueError(f"exceptions name rule {rule} of key {key!r} twice")
        return self


def _usable_to_sign() -> Iterable[str]:
    return (entry.name for entry in SIGNATURES.values() if entry.status.protects)


def _check_names(member: str, names: Iterable[str], fitting: Iterable[str]) -> None:
    known = sorted(fitting)
    for name in names:
        if name not in known:
            raise ValueError(f"{member} cannot hold {name!r}; it is made of {', '.join(known)}")
