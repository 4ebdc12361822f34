"""What settings are made of: names, paths, and a section that is strict and frozen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationInfo

from keycustody.algorithms import Purpose
from keycustody.config.identities import canonical

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


def absolute(path: Path, info: ValidationInfo) -> Path:
    base: Path = info.context["base"] if info.context else Path.cwd()
    return (base / path.expanduser()).resolve()


#: A path; relative ones start at the settings file's folder.
PathSetting = Annotated[Path, AfterValidator(absolute)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
