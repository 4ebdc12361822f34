"""Reading a settings file and its policy: every finding at once, each with the file, the member's
path and what was expected there.

Unknown members are refused, and nothing is converted in silence. Relative paths are relative to the
file's folder.
"""

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from keycustody.config.fields import ADMIN
from keycustody.config.findings import POLICY_INVALID, SETTINGS_INVALID, Finding
from keycustody.config.policy import Policy
from keycustody.config.settings import SOCKET_PATH_BYTES, Settings
from keycustody.errors import ConfigInvalid
from keycustody.token import profiles

Model = TypeVar("Model", bound=BaseModel)

#: Larger than any settings; bounds what a file named by mistake costs.
_FILE_BYTES = 2**20
#: A dotted name costs the square of its parts, in time and memory (tomllib); ours have four.
_LONG_NAME = re.compile(rb"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")


def load(path: Path) -> Settings:
    """Read a settings file and the policy that it names. Raises `ConfigInvalid`, whose message has
    a line for each finding."""
    settings, found = read(path)
    if settings is None or found:
        raise ConfigInvalid("\n".join(_line(one) for one in found))
    return settings


def _line(finding: Finding) -> str:
    where = f"{finding.file}: {finding.path}" if finding.path else finding.file
    return f"{where}: {finding.message}"


def read(path: Path) -> tuple[Settings | None, list[Finding]]:
    """Read them and return all findings with what could be read: None if the settings could not."""
    raw, found = document(path, SETTINGS_INVALID)
    if raw is None:
        return None, found
    base = path.absolute().parent
    settings, invalid = _validated(path, Settings, _expanded(raw, base), SETTINGS_INVALID)
    found += invalid
    found += (_told(path, line) for line in _dangling(raw))
    if settings is None:
        return None, found
    found += (_told(path, line) for line in (*_unreachable(settings), *_ambiguous(settings)))
    if settings.policy is None:
        return settings, found
    policy, amiss = read_policy(settings.policy)
    return settings.with_policy(policy), found + amiss


def read_policy(path: Path) -> tuple[Policy | None, list[Finding]]:
    """Read a policy file and return all findings with what could be read."""
    raw, found = document(path, POLICY_INVALID)
    if raw is None:
        return None, found
    policy, invalid = _validated(path, Policy, raw, POLICY_INVALID)
    return policy, found + invalid


def document(path: Path, rule: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Read a TOML file as it is, within bounds; a finding of that rule says why it cannot be."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            reason = f"is longer than {_FILE_BYTES} bytes."
        elif _LONG_NAME.search(content):
            reason = "has a name of more than 32 parts."
        else:
            return tomllib.loads(content.decode("utf-8")), []
    except OSError as error:
        reason = f"cannot be read: {error.strerror}."
    except RecursionError:
        reason = "is nested too deeply."
    except ValueError as error:  # TOML, UTF-8, or a number with thousands of digits
        reason = f"is not TOML: {error}."
    return None, [Finding(str(path), "", rule, reason)]


def _validated(
    path: Path, model: type[Model], raw: Mapping[str, Any], rule: str
) -> tuple[Model | None, list[Finding]]:
    # Through JSON, because only there strict validation still takes a path or a date from a string.
    context = {"base": path.absolute().parent}
    try:
        document = json.dumps(raw, default=str)
    except RecursionError:  # dotted names are read without recursion
        return None, [Finding(str(path), "", rule, "is nested too deeply.")]
    try:
        made = model.model_validate_json(document, strict=True, context=context)
    except ValidationError as error:
        lines = (_finding(details) for details in _original(error.errors(include_input=False)))
        return None, [_told(path, line, rule) for line in lines]
    return made, []


def _original(errors: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what is wrong, without what only follows from it: a list is too short for pydantic when
    its members were refused."""
    for one in errors:
        at = one["loc"]
        within = (other["loc"] for other in errors if len(other["loc"]) > len(at))
        if one["type"] != "too_short" or not any(loc[: len(at)] == at for loc in within):
            yield one


def _told(path: Path, line: str, rule: str = SETTINGS_INVALID) -> Finding:
    member, _, message = line.partition(": ")
    return Finding(str(path), member, rule, message)


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
            expected = str(details["ctx"]["error"]).rstrip(".")
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
    names: set[str] = set()
    for index, grant in enumerate(grants if isinstance(grants, list) else ()):
        named = grant if isinstance(grant, dict) else {}
        name = str(named.get("name") or f"grants.{index}")
        if name in names:
            yield f"grants.{index}.name: {name!r} is another grant's; uses are counted by name."
        names.add(name)
        for principal in _strings(named.get("principals")):
            if principal not in principals:
                yield f"grants.{index}.principals: {principal!r} is not declared in principals."
        for pattern in _strings(named.get("keys")):
            if not any(fnmatch.fnmatchcase(str(key), pattern) for key in keys):
                yield f"grants.{index}.keys: {pattern!r} matches no declared key."


def _ambiguous(settings: Settings) -> Iterator[str]:
    """Find identities of two principals, principals that nobody can be, and sockets taken twice."""
    owners: dict[str, str] = {}
    for name, principal in settings.principals.items():
        for identity in principal.identities:
            owner = owners.setdefault(identity, name)
            if owner != name:
                yield f"principals.{name}.identities: {identity} is principal {owner!r} already."
        if not principal.socket and not (principal.identities and settings.tls):
            yield f"principals.{name}: without a socket, it needs identities and [tls]."
    listen = settings.tls.listen if settings.tls else ()
    sockets = {f"unix:{settings.socket_path(name)}" for name in settings.socket_names}
    for index, address in enumerate(listen):
        if address in sockets or address in listen[:index]:
            yield f"tls.listen.{index}: {address} is taken already."
        if len(address.removeprefix("unix:").encode()) > SOCKET_PATH_BYTES:
            yield f"tls.listen.{index}: a path has at most {SOCKET_PATH_BYTES} bytes; shorten it."


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
