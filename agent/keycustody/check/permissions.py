"""Permissions of the files that the settings name, where they exist here.

A finding each for a pipeline, and what keeps the agent and the commands that use the token from
starting: whoever can change the settings, the PIN or the module decides what the agent does.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from keycustody.check.subject import Subject
from keycustody.config import PinSource, Settings
from keycustody.config.findings import RULES, Finding, Refuses
from keycustody.errors import InsecurePermissions

_GROUP_OR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require(file: Path, settings: Settings) -> None:
    """Raise `InsecurePermissions`, with a line for each finding that keeps the agent from
    starting."""
    subject = Subject(str(file), settings, datetime.now(UTC), 0)
    found = [one for one in check(subject) if RULES[one.rule].refuses is Refuses.START]
    if found:
        raise InsecurePermissions(
            "\n".join(f"{one.path or one.file}: {one.message}" for one in found)
        )


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is open to others."""
    settings = subject.settings
    for member, file in (("", Path(subject.file)), ("policy", settings.policy)):
        places = () if file is None else (file, file.absolute().parent)
        for path in filter(_replaceable, places):
            reason = f"anybody may change {path}; run `chmod o-w` on it."
            yield subject.finding(member, "config-permissions", reason)
    yield from _pin(subject, "token.pin", settings.token.pin)
    if settings.token.so_pin is not None:
        yield from _pin(subject, "token.so_pin", settings.token.so_pin)
    if settings.tls is not None and _open(settings.tls.key, _GROUP_OR_OTHERS):
        reason = f"others may read {settings.tls.key}; run `chmod 600` on it."
        yield subject.finding("tls.key", "tls-key-permissions", reason)
    if _open(settings.agent.state_dir, _GROUP_OR_OTHERS):
        reason = f"others may open {settings.agent.state_dir}; run `chmod 700` on it."
        yield subject.finding("agent.state_dir", "state-permissions", reason)
    yield from _module(subject, settings.token.module)


def _module(subject: Subject, module: Path) -> Iterator[Finding]:
    real = module.resolve()
    places = (module, *module.parents, real, *real.parents)
    if open_to_all := [path for path in places if _replaceable(path)]:
        reason = f"anybody may write to {open_to_all[0]}, and so replace the module."
        yield subject.finding("token.module", "module-permissions", reason)
    elif (found := _stat(module)) is not None and found.st_uid not in (0, os.geteuid()):
        reason = f"{module} belongs to another user, who can change it; have root own it."
        yield subject.finding("token.module", "module-permissions", reason)


def _pin(subject: Subject, path: str, source: PinSource) -> Iterator[Finding]:
    if source.file is None:
        return
    if _open(source.file, _GROUP_OR_OTHERS):
        reason = f"others may read {source.file}; run `chmod 600` on it, and change the PIN."
        yield subject.finding(f"{path}.file", "pin-permissions", reason)
    if _others_write(source.file.parent):
        reason = f"others may write to {source.file.parent}; run `chmod go-w` on it."
        yield subject.finding(f"{path}.file", "pin-folder", reason)


def _replaceable(path: Path) -> bool:
    """May anybody replace it, or what is in it? In a sticky folder, only one's own files."""
    return _open(path, stat.S_IWOTH) and not _open(path, stat.S_ISVTX)


def _others_write(folder: Path) -> bool:
    """May others than its owner write there? A group that is its owner's alone is nobody else, as
    where the umask is 002."""
    found = _stat(folder)
    if found is None:
        return False
    by_group = bool(found.st_mode & stat.S_IWGRP) and not _of_one(found.st_gid, found.st_uid)
    return by_group or bool(found.st_mode & stat.S_IWOTH)


def _of_one(group: int, user: int) -> bool:
    """Is that group this user's own, named alike and without other members?"""
    try:
        owner, named = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    return (owner.pw_gid, owner.pw_name) == (group, named.gr_name) and not set(named.gr_mem) - {
        owner.pw_name
    }


def _open(path: Path, bits: int) -> bool:
    """Does it exist here, with any of these bits set?"""
    found = _stat(path)
    return found is not None and bool(found.st_mode & bits)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
