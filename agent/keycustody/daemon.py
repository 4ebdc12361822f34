"""Composition root: wires everything, for the daemon and for offline commands alike.

Each function takes `Settings` and blocks until done. All of them hold the state folder, so that an
agent and a command, or two agents, never work on one journal, and all of them leave audit records.
`prompt` asks a person for a PIN; None means that there is no terminal. They raise errors of
`keycustody.errors` only.
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import uvloop

from keycustody.config import ADMIN, PrincipalSettings, Settings
from keycustody.config import PinSource as PinSettings
from keycustody.custody import lifecycle, listing
from keycustody.custody.audit import Journal
from keycustody.custody.lifecycle import Step
from keycustody.custody.listing import Overview
from keycustody.custody.operation import Desk
from keycustody.custody.rules import rules_of
from keycustody.custody.scanner import Scanner
from keycustody.custody.state_folder import hold
from keycustody.errors import (
    InvalidRequest,
    ModuleUnusable,
    PinUnavailable,
    TokenInitialised,
    TokenNotFound,
)
from keycustody.service.dispatch import Gate
from keycustody.service.handlers import admin_services, services
from keycustody.service.listeners import SetServing, listener
from keycustody.token import profiles
from keycustody.token.api import Scan, TokenInfo
from keycustody.token.initialise import initialise
from keycustody.token.pin import (
    CredentialPin,
    FilePin,
    PinSource,
    PromptPin,
    generate,
    write_new,
)
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool, PoolSettings

Prompt = Callable[[str], str]

#: How often health checks are told the truth.
_HEALTH_SECONDS = 0.5


def serve(
    settings: Settings, *, prompt: Prompt | None, on_ready: Callable[[Sequence[Path]], None]
) -> None:
    """Run the agent until SIGTERM or SIGINT. `on_ready` is called once, with the sockets."""
    _log_to_stderr()
    with hold(settings.agent.state_dir):
        uvloop.run(_serve(settings, prompt, on_ready))


async def _serve(
    settings: Settings, prompt: Prompt | None, on_ready: Callable[[Sequence[Path]], None]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    profile = profiles.load(settings.token.profile)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(settings.agent.state_dir))
        pool = await stack.enter_async_context(_pool(settings, prompt, settings.token.workers))
        scanner = Scanner(pool, settings.keys, profile, settings.limits.scan_seconds)
        await scanner.scan()
        desk = Desk(rules_of(settings), scanner, pool, journal, settings.token.delivery == "plain")
        overview = Overview(pool, scanner, profile.name, time.monotonic())
        healths = [
            await stack.enter_async_context(_listener(settings, name, desk, overview))
            for name in settings.socket_names
        ]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [
            tasks.create_task(scanner.run()),
            tasks.create_task(_report_health(healths, pool, scanner)),
        ]
        on_ready([settings.socket_path(name) for name in settings.socket_names])
        await stop.wait()
        for task in background:
            task.cancel()


@asynccontextmanager
async def _listener(
    settings: Settings, name: str, desk: Desk, overview: Overview
) -> AsyncIterator[SetServing]:
    gate = Gate(name, "socket", settings.limits.deadline_seconds, partial(listing.reject, desk))
    async with listener(
        settings.socket_path(name),
        settings.principals.get(name, PrincipalSettings()),
        gate,
        admin_services(desk, overview) if name == ADMIN else services(desk),
        settings.limits.request_bytes,
    ) as set_serving:
        yield set_serving


async def _report_health(healths: Sequence[SetServing], pool: Pool, scanner: Scanner) -> None:
    told: bool | None = None
    while True:
        serving = pool.ready > 0 and scanner.fresh
        if serving is not told:
            for set_serving in healths:
                await set_serving(serving)
            told = serving
        await asyncio.sleep(_HEALTH_SECONDS)


def apply_keys(settings: Settings, *, dry_run: bool, prompt: Prompt | None) -> list[Step]:
    """Create the declared keys that are missing, and what the agent itself needs on the token.

    Returns the steps, done, or with `dry_run` those that would be. Does nothing when nothing is
    missing.
    """
    with hold(settings.agent.state_dir):
        return asyncio.run(_apply(settings, dry_run, prompt))


async def _apply(settings: Settings, dry_run: bool, prompt: Prompt | None) -> list[Step]:
    profile = profiles.load(settings.token.profile)
    async with Journal(settings.agent.state_dir) as journal, _pool(settings, prompt, 1) as pool:
        steps = lifecycle.plan(await pool.call(Scan(), timeout=60), settings.keys, profile)
        if dry_run:
            return steps
        actor = lifecycle.command_line(rules_of(settings).digest)
        return await lifecycle.apply(steps, pool, profile, journal, actor)


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
    async with Journal(settings.agent.state_dir) as journal:
        what = f"initialise token {settings.token.label}{', destroying its keys' if force else ''}"
        async with lifecycle.recorded(journal, actor, "init", what):
            try:
                for path in made:
                    write_new(path, generate())
                info = await initialise(
                    _pool_settings(settings, 1),
                    so_pin=_pin_source(settings.token.so_pin, "SO PIN", prompt)(),
                    user_pin=_pin_source(settings.token.pin, "User PIN", prompt)(),
                    force=force,
                )
            except (TokenInitialised, TokenNotFound, ModuleUnusable, InvalidRequest):
                # Nothing was changed, and a PIN that no token has would only be tried in vain.
                for path in made:
                    path.unlink(missing_ok=True)
                raise
        PinGuard(settings.agent.state_dir).clear()
        return info


def clear_pin_guard(settings: Settings) -> bool:
    """Forget which PINs were refused; returns whether any was."""
    with hold(settings.agent.state_dir):
        return PinGuard(settings.agent.state_dir).clear()


def _pool(settings: Settings, prompt: Prompt | None, workers: int) -> Pool:
    return Pool(
        _pool_settings(settings, workers),
        _pin_source(settings.token.pin, "User PIN", prompt),
        PinGuard(settings.agent.state_dir),
    )


def _pool_settings(settings: Settings, workers: int) -> PoolSettings:
    token = settings.token
    return PoolSettings(
        module=str(token.module),
        profile=token.profile,
        label=token.label,
        serial=token.serial,
        environment=token.environment,
        workers=workers,
        queue_limit=settings.limits.queue,
    )


def _pin_source(settings: PinSettings, what: str, prompt: Prompt | None) -> PinSource:
    if settings.file is not None:
        return FilePin(settings.file)
    if settings.credential is not None:
        return CredentialPin(settings.credential)
    return PromptPin(lambda: prompt(what) if prompt is not None else None)


def _log_to_stderr() -> None:
    """Send logs of ours, and of libraries, to stderr as one JSON object a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
