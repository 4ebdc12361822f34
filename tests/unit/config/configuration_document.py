"""Writes docs/configuration.md from the fields of `keycustody.config`, so that it cannot drift.

    python -m tests.unit.config.configuration_document > docs/configuration.md

Names, types, defaults, limits and reasons are the code's; only the text around the tables is here.
"""

import sys
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import AwareDatetime, BaseModel, ByteSize, StringConstraints
from pydantic.fields import FieldInfo

from keycustody import config

_INTRODUCTION = """\
# Settings

One TOML file holds everything: the token, who may call, the keys, who may do what, and the limits.
`hsm_config/` has a complete, commented file for each kind of token.

It is read strictly. A name that is not listed here is refused, nothing is converted in silence, and
all findings are reported at once, each with the file, the path of the setting and what was
expected. Relative paths start at the folder of the file. It holds no secret: PINs are named by
where they are kept.

`keycustody reload`, or SIGHUP, has a running agent follow the file. `principals`, `keys`, `grants`,
`policy` and `limits` change then; `agent`, `token`, `audit`, `metrics`, `tls`,
`limits.request_bytes` and `limits.connections` wait for a restart (docs/policy.md).

This page is made from the code by `tests/unit/config/configuration_document.py`; a test compares.

* A *path* is a string; `~` is your home.
* A *size* is a number of bytes, or a string such as `"1MiB"`.
* A *name* is 1 to 64 characters of `a-z`, `0-9`, `.`, `_`, `-`, and starts with a letter or digit.
  A *pattern* may also hold `*`, which stands for any characters.
"""

#: Section, its table header in TOML, and what to know besides its fields.
_SECTIONS: tuple[tuple[type[BaseModel], str, str], ...] = (
    (config.AgentSettings, "[agent]", ""),
    (config.TokenSettings, "[token]", "The token is named by `label`, `serial`, or both."),
    (
        config.PinSource,
        "token.pin and token.so_pin",
        'For example `pin = { file = "../var/pin" }`.',
    ),
    (
        config.PrincipalSettings,
        "[principals.NAME]",
        "`admin` is the operators' principal: it is always there and cannot be declared.",
    ),
    (
        config.KeySettings,
        "[keys.NAME]",
        "Which algorithm serves which purpose, and on which token, is in docs/tokens.md.",
    ),
    (config.LeaseSettings, "[keys.NAME.lease]", "Advice that clients follow, not enforcement."),
    (
        config.GrantSettings,
        "[[grants]]",
        "Every principal must be declared, and every pattern must match a declared key.",
    ),
    (config.RateSettings, "grants.rate and audit.denials", "A token bucket."),
    (config.BudgetSettings, "grants.budgets", "A list: several windows hold at once."),
    (config.Limits, "[limits]", ""),
    (config.AuditSettings, "[audit]", ""),
    (config.TlsSettings, "[tls]", "Without it, there is no TCP."),
    (config.MetricsSettings, "[metrics]", "Without it, there are none."),
)


def render() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for model, header, note in _SECTIONS:
        parts.append(f"## {header}\n\n{_summary(model)}{' ' + note if note else ''}\n")
        parts.append("\n".join(table(model)) + "\n")
    return "\n".join(parts)


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting that can be written, with its section."""
    for model, header, _ in _SECTIONS:
        for name, field in model.model_fields.items():
            yield f"{header} {name}", field


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def table(model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of the table of a section."""
    yield "| setting | type | default | limits | what and why |"
    yield "| --- | --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        limits = ", ".join(_limits(field))
        cells = (f"`{name}`", _type(field.annotation), _default(field), limits, field.description)
        yield "| " + " | ".join(_cell(cell or "") for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _constrained(arguments)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not types.NoneType)
    if origin is tuple:
        one = _type(arguments[0])
        return f"list of {one}" if "`" in one else f"list of {_plural(one)}"
    if origin in (dict, Mapping):
        return "table of strings"
    return _plain(annotation)


def _constrained(arguments: tuple[Any, ...]) -> str:
    for one in arguments:
        if isinstance(one, StringConstraints):
            if "spiffe" in str(one.pattern):
                return "identity"
            return "pattern" if "*" in str(one.pattern).split("]", 1)[0] else "name"
    return _type(arguments[0])


def _plural(what: str) -> str:
    return what.removesuffix("y") + "ies" if what.endswith("y") else what + "s"


def _plain(annotation: type) -> str:
    if issubclass(annotation, Enum):
        return ", ".join(f'`"{one.value}"`' for one in annotation)
    if issubclass(annotation, BaseModel):
        return "table"
    names: dict[type, str] = {
        Path: "path",
        ByteSize: "size",
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "string",
        AwareDatetime: "date and time with offset",
        date: "date",
    }
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    match default:
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case BaseModel():
            return "see below"
        case dict() | tuple() | list():
            return "empty"
        case ByteSize():
            return f'`"{_size(default)}"`'
        case str():
            return f'`"{default}"`'
        case _:
            return f"`{default}`"


def _size(value: int) -> str:
    human = ByteSize(value).human_readable()
    number = float(human.rstrip("BKMGTPEi"))
    return f"{number:g}{human.lstrip('0123456789.')}"


def _limits(field: FieldInfo) -> Iterator[str]:
    size = field.annotation is ByteSize
    for one in field.metadata:
        match one:
            case Ge(ge=bound):
                yield f"from {_bound(bound, size=size)}"
            case Gt(gt=bound):
                yield f"above {_bound(bound, size=size)}"
            case Le(le=bound):
                yield f"to {_bound(bound, size=size)}"
            case MinLen(min_length=bound):
                yield f"at least {bound} long"
            case MaxLen(max_length=bound):
                yield f"at most {bound} long"


def _bound(value: Any, *, size: bool) -> str:
    return _size(value) if size else f"{value:,}"


if __name__ == "__main__":
    sys.stdout.write(render())
