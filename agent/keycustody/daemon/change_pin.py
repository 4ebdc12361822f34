"""Changing the token's PIN so that no crash loses it: some file always has the PIN that holds.

The new PIN is in `FILE.new`, durably, before the token is asked to take it. `FILE` is replaced only
after a process that never knew the old PIN logged in with the new one. Between the two it is not
known which of them holds, and the next run finds out: it tries the old one, then the new one, each
at most once, as the PIN guard has it.
"""

import asyncio
from pathlib import Path

from keycustody.config import Settings
from keycustody.custody import lifecycle
from keycustody.custody.access.rules import rules_of
from keycustody.custody.state_folder import hold
from keycustody.daemon.audit_heads import journal_of, sign_head
from keycustody.daemon.wiring import pool_settings
from keycustody.errors import (
    FileUnusable,
    InvalidRequest,
    PinGuarded,
    PinIncorrect,
    TokenNotFound,
)
from keycustody.token.api import ChangePin, Secret
from keycustody.token.hardening import harden
from keycustody.token.pin import FilePin, generate, sync_folder, write_new
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool

#: Hardware may take its time to write.
_SECONDS = 60.0


def change_pin(settings: Settings) -> Path:
    """Change the user PIN that `token.pin.file` holds; returns that file.

    Raises `InvalidRequest` if the PIN is not kept in a file, or if the token does not take the new
    one; `PinIncorrect` or `PinGuarded` if neither PIN opens the token.
    """
    file = settings.token.pin.file
    if file is None:
        raise InvalidRequest(
            "Only a PIN that is kept in a file can be changed: run this with settings whose "
            "token.pin names a file, then put the new PIN where it is to be."
        )
    harden()
    with hold(settings.agent.state_dir):
        asyncio.run(_change(settings, file))
    return file


async def _change(settings: Settings, file: Path) -> None:
    actor = lifecycle.command_line(rules_of(settings).digest)
    what = f"change the user PIN of token {settings.token.label or settings.token.serial}"
    async with journal_of(settings) as journal:
        async with lifecycle.recorded(journal, actor, "change-pin", what):
            await _change_recorded(settings, file)
        async with _pool(settings, FilePin(file)()) as token:
            await sign_head(settings, journal, token)


async def _change_recorded(settings: Settings, file: Path) -> None:
    new_file = file.with_name(f"{file.name}.new")
    old = FilePin(file)()
    resumed = new_file.exists()
    if not resumed:
        write_new(new_file, generate())
    new = FilePin(new_file)()
    try:
        await _set(settings, old, new)
    except (PinIncorrect, PinGuarded):
        # The old PIN opens nothing: an earlier run may have come as far as the token.
        if not resumed:
            new_file.unlink()
            raise
    except (InvalidRequest, TokenNotFound):
        # The token has not changed, and a PIN that it does not take is of no use.
        if not resumed:
            new_file.unlink()
        raise
    await _prove(settings, new)
    _replace(new_file, file)


async def _set(settings: Settings, old: bytes, new: bytes) -> None:
    async with _pool(settings, old) as token:
        await token.call(ChangePin(Secret(old), Secret(new)), timeout=_SECONDS)


async def _prove(settings: Settings, new: bytes) -> None:
    """Log in with the new PIN, in a process that has not seen the change."""
    async with _pool(settings, new):
        pass


def _pool(settings: Settings, pin: bytes) -> Pool:
    return Pool(pool_settings(settings, 1), lambda: pin, PinGuard(settings.agent.state_dir))


def _replace(new_file: Path, file: Path) -> None:
    try:
        new_file.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise FileUnusable(
            f"{file} cannot be replaced by {new_file}, which holds the token's PIN now: "
            f"{error.strerror}."
        ) from error
