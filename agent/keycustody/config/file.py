"""Reading a settings file: every finding at once, each with the file, the member's path and what
was expected there.

Unknown members are refused, and nothing is converted in silence. Relative paths are relative to the
file's folder.
"""

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from keycustody.config.settings import ADMIN, SOCKET_PATH_BYTES, Settings
from keycustody.errors import ConfigInvalid
from keycustody.token import profiles


def load(path: Path) -> Settings:
    """Read a settings file. Raises `ConfigInvalid`, whose message has a line for each finding."""
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise ConfigInvalid(f"{path}: is nested too deeply.") from error
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
