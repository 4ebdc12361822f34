"""Permissions of the files that the settings name, where they exist here."""

import stat
from collections.abc import Iterator
from pathlib import Path

from keycustody.check.subject import Subject
from keycustody.config import PinSource
from keycustody.config.findings import Finding

_OTHERS_WRITE = stat.S_IWOTH
_GROUP_OR_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_GROUP_OR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is open to others."""
    settings = subject.settings
    if _open(Path(subject.file), _OTHERS_WRITE):
        reason = "anybody may change this file; run `chmod o-w` on it."
        yield subject.finding("", "config-permissions", reason)
    if settings.policy is not None and _open(settings.policy, _OTHERS_WRITE):
        reason = f"anybody may change {settings.policy}; run `chmod o-w` on it."
        yield subject.finding("policy", "config-permissions", reason)
    yield from _pin(subject, "token.pin", settings.token.pin)
    if settings.token.so_pin is not None:
        yield from _pin(subject, "token.so_pin", settings.token.so_pin)
    if settings.tls is not None and _open(settings.tls.key, _GROUP_OR_OTHERS):
        reason = f"others may read {settings.tls.key}; run `chmod 600` on it."
        yield subject.finding("tls.key", "tls-key-permissions", reason)
    if _open(settings.agent.state_dir, _GROUP_OR_OTHERS):
        reason = f"others may open {settings.agent.state_dir}; run `chmod 700` on it."
        yield subject.finding("agent.state_dir", "state-permissions", reason)
    module = settings.token.module
    if open_to_all := [path for path in (module, *module.parents) if _replaceable(path)]:
        reason = f"anybody may write to {open_to_all[0]}, and so replace the module."
        yield subject.finding("token.module", "module-permissions", reason)


def _pin(subject: Subject, path: str, source: PinSource) -> Iterator[Finding]:
    if source.file is None:
        return
    if _open(source.file, _GROUP_OR_OTHERS):
        reason = f"others may read {source.file}; run `chmod 600` on it, and change the PIN."
        yield subject.finding(f"{path}.file", "pin-permissions", reason)
    if _open(source.file.parent, _GROUP_OR_OTHERS_WRITE):
        reason = f"others may write to {source.file.parent}; run `chmod go-w` on it."
        yield subject.finding(f"{path}.file", "pin-folder", reason)


def _replaceable(path: Path) -> bool:
    """May anybody replace it, or what is in it? In a sticky folder, only one's own files."""
    return _open(path, _OTHERS_WRITE) and not _open(path, stat.S_ISVTX)


def _open(path: Path, bits: int) -> bool:
    """Does it exist here, with any of these bits set?"""
    try:
        return bool(path.stat().st_mode & bits)
    except OSError:
        return False
