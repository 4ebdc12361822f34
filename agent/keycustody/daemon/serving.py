"""The daemon: one token, one journal, a listener for each principal, until it is told to stop."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import uvloop

from keycustody.config import ADMIN, PrincipalSettings, Settings
from keycustody.custody import listing
from keycustody.custody.audit import Journal
from keycustody.custody.health import Examiner, Guarded, Health, serving
from keycustody.custody.listing import Overview
from keycustody.custody.memory import MemoryFile
from keycustody.custody.operation import Desk, Office
from keycustody.custody.policy import findings, now_utc
from keycustody.custody.rules import Rules, rules_of
from keycustody.custody.scanner import Scanner
from keycustody.custody.state_folder import hold
from keycustody.daemon.logs import log_to_stderr
from keycustody.daemon.wiring import Prompt, pool
from keycustody.service.dispatch import Gate
from keycustody.service.handlers import admin_services, services
from keycustody.service.listeners import SetServing, listener
from keycustody.token import profiles
from keycustody.token.pool import Pool

#: How often health checks are told the truth.
_HEALTH_SECONDS = 0.5

_log = structlog.get_logger(__name__)


def serve(
    settings: Settings, *, prompt: Prompt | None, on_ready: Callable[[Sequence[Path]], None]
) -> None:
    """Run the agent until SIGTERM or SIGINT. `on_ready` is called once, with the sockets."""
    log_to_stderr()
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
        workers = await stack.enter_async_context(pool(settings, prompt, settings.token.workers))
        memory = MemoryFile(settings.agent.state_dir)
        scanner = Scanner(workers, settings.keys, profile, settings.limits.scan_seconds, memory)
        await scanner.scan()
        rules = rules_of(settings)
        _log_policy(rules)
        health = Health(settings.limits.self_test_seconds)
        examiner = Examiner(workers, scanner, health, journal, rules.digest)
        await examiner.round()
        token = Guarded(workers, health)
        office = Office(Desk(rules, scanner, token, journal, settings.token.delivery == "plain"))
        overview = Overview(workers, scanner, health, profile.name, time.monotonic())
        healths = [
            await stack.enter_async_context(_listener(settings, name, office, overview))
            for name in settings.socket_names
        ]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [
            tasks.create_task(scanner.run()),
            tasks.create_task(examiner.run()),
            tasks.create_task(_report_health(healths, workers, scanner, health)),
        ]
        on_ready([settings.socket_path(name) for name in settings.socket_names])
        await stop.wait()
        for task in background:
            task.cancel()


def _log_policy(rules: Rules) -> None:
    for finding in findings(rules.verdicts, now_utc()):
        _log.warning("policy.finding", finding=finding)


@asynccontextmanager
async def _listener(
    settings: Settings, name: str, office: Office, overview: Overview
) -> AsyncIterator[SetServing]:
    gate = Gate(name, "socket", settings.limits.deadline_seconds, partial(listing.reject, office))
    async with listener(
        settings.socket_path(name),
        settings.principals.get(name, PrincipalSettings()),
        gate,
        admin_services(office, overview) if name == ADMIN else services(office),
        settings.limits.request_bytes,
    ) as set_serving:
        yield set_serving


async def _report_health(
    healths: Sequence[SetServing], workers: Pool, scanner: Scanner, health: Health
) -> None:
    """Tell that the agent serves if it has a worker, a fresh scan, and not only keys that fail."""
    told: bool | None = None
    while True:
        hopeless = health.hopeless(serving(scanner.latest()))
        able = workers.ready > 0 and scanner.fresh and not hopeless
        if able is not told:
            for set_serving in healths:
                await set_serving(able)
            told = able
        await asyncio.sleep(_HEALTH_SECONDS)
