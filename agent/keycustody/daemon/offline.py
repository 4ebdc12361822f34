"""Commands that work without a running agent, and never beside one."""

import asyncio

from keycustody.config import Settings
from keycustody.custody import lifecycle
from keycustody.custody.access.rules import rules_of
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.lifecycle import Change, Executor, Report
from keycustody.custody.state_folder import hold
from keycustody.daemon.audit_heads import journal_of, sign_head
from keycustody.daemon.wiring import Prompt, pin_source, pool, pool_settings
from keycustody.errors import (
    InvalidRequest,
    ModuleUnusable,
    PinUnavailable,
    TokenInitialised,
    TokenNotFound,
)
from keycustody.token import profiles
from keycustody.token.api import TokenInfo
from keycustody.token.hardening import harden
from keycustody.token.initialise import initialise
from keycustody.token.pin import generate, write_new
from keycustody.token.pin_guard import PinGuard


def change_keys(
    settings: Settings, change: Change, *, dry_run: bool, prompt: Prompt | None
) -> Report:
    """Make a change to the keys on the token, or with `dry_run` say what it would do.

    Raises `StateLocked` if an agent holds the state folder: then that agent has to be asked.
    """
    harden()
    with hold(settings.agent.state_dir):
        return asyncio.run(_change(settings, change, dry_run, prompt))


async def _change(
    settings: Settings, change: Change, dry_run: bool, prompt: Prompt | None
) -> Report:
    async with journal_of(settings) as journal, pool(settings, prompt, 1) as token:
        rules = rules_of(settings)
        executor = Executor(
            token,
            profiles.load(settings.token.profile),
            journal,
            MemoryFile(settings.agent.state_dir),
            lambda: rules,
            journal.clock.utc,
        )
        actor = lifecycle.command_line(rules.digest)
        try:
            return await executor.run(change, actor, dry_run=dry_run)
        finally:
            if not dry_run:
                await sign_head(settings, journal, token)


def initialise_token(
    settings: Settings, *, force: bool, label: str | None, prompt: Prompt | None
) -> TokenInfo:
    """Initialise the token and set its PINs; PIN files that are missing are made.

    A token that is initialised already is left alone (`TokenInitialised`), unless `force` is given
    and `label` repeats the token's own: everything on it is then destroyed.
    """
    if force and label != settings.token.label:
        raise InvalidRequest(
            "Initialising again destroys every key on the token: confirm it with "
            f"--force --label {settings.token.label}"
        )
    harden()
    with hold(settings.agent.state_dir):
        return asyncio.run(_initialise(settings, force, prompt))


async def _initialise(settings: Settings, force: bool, prompt: Prompt | None) -> TokenInfo:
    if settings.token.so_pin is None:
        raise PinUnavailable("The settings do not say where the SO PIN is kept: token.so_pin.")
    made = [
        path
        for source in (settings.token.so_pin, settings.token.pin)
        if (path := source.file) is not None and not path.exists()
    ]
    actor = lifecycle.command_line(rules_of(settings).digest)
    async with journal_of(settings) as journal:
        what = f"initialise token {settings.token.label}{', destroying its keys' if force else ''}"
        async with lifecycle.recorded(journal, actor, "init", what):
            try:
                for path in made:
                    write_new(path, generate())
                info = await initialise(
                    pool_settings(settings, 1),
                    so_pin=pin_source(settings.token.so_pin, "SO PIN", prompt)(),
                    user_pin=pin_source(settings.token.pin, "User PIN", prompt)(),
                    force=force,
                )
            except (TokenInitialised, TokenNotFound, ModuleUnusable, InvalidRequest):
                # Nothing was changed, and a PIN that no token has would only be tried in vain.
                for path in made:
                    path.unlink(missing_ok=True)
                raise
        PinGuard(settings.agent.state_dir).clear()
        MemoryFile(settings.agent.state_dir).forget()
        return info


def clear_pin_guard(settings: Settings) -> bool:
    """Forget which PINs were refused; returns whether any was."""
    with hold(settings.agent.state_dir):
        return PinGuard(settings.agent.state_dir).clear()
