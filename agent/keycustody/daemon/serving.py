"""The daemon: one token, one journal, a listener for each principal, until it is told to stop.

SIGHUP, or an operator's command, has it read its settings again (`daemon.reloading`).
"""

import asyncio
import math
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from keycustody import __version__
from keycustody.config import ADMIN, Settings
from keycustody.custody.access.policy import log_findings
from keycustody.custody.access.rules import rules_of
from keycustody.custody.admission import Admission
from keycustody.custody.audit import Denials, Heads
from keycustody.custody.health import Examiner, Guarded, Health, serving
from keycustody.custody.identity.judge import Mapping
from keycustody.custody.keys.memory import MemoryFile
from keycustody.custody.keys.scanner import Scanner
from keycustody.custody.lifecycle import Executor
from keycustody.custody.listing import Overview
from keycustody.custody.operation import Caller, Desk, Office
from keycustody.custody.rebuilding import rebuilt
from keycustody.custody.reload import reload
from keycustody.custody.state_folder import hold
from keycustody.custody.turns import Turns
from keycustody.daemon.audit_heads import journal_of
from keycustody.daemon.descriptors import allow_descriptors
from keycustody.daemon.draining import Drain, Together
from keycustody.daemon.listening import Opening, Sockets
from keycustody.daemon.logs import log_to_stderr
from keycustody.daemon.reloading import Part, Reloader
from keycustody.daemon.systemd import Notifier
from keycustody.daemon.wiring import Prompt, pool
from keycustody.errors import InternalError, KeycustodyError
from keycustody.service.handlers import admin_services
from keycustody.service.listeners import SetServing
from keycustody.service.tls import TlsFiles
from keycustody.telemetry import endpoint
from keycustody.telemetry.certificates import Certificates
from keycustody.telemetry.families import Families
from keycustody.telemetry.tally import Tally
from keycustody.token import profiles
from keycustody.token.hardening import harden
from keycustody.token.pool import Pool

#: How often health checks are told the truth.
_HEALTH_SECONDS = 0.5

_log = structlog.get_logger(__name__)


def serve(
    read: Callable[[], Settings],
    *,
    prompt: Prompt | None,
    on_ready: Callable[[Sequence[Path]], None],
) -> None:
    """Run the agent until SIGTERM or SIGINT. `read` reads its settings, now and at each reload.
    `on_ready` is called once, with the sockets."""
    unlocked = harden()
    os.umask(0o077)
    settings = read()
    log_events = log_to_stderr(settings.agent.log_level)
    allow_descriptors(settings)

    def ready(sockets: Sequence[Path]) -> None:
        # Not before: an agent that cannot start says why, and no more.
        if unlocked:
            _log.warning("memory.unlocked", reason=unlocked)
        on_ready(sockets)

    with hold(settings.agent.state_dir):
        uvloop.run(_serve(read, settings, log_events, prompt, ready))


async def _serve(
    read: Callable[[], Settings],
    settings: Settings,
    log_events: Counter[str],
    prompt: Prompt | None,
    on_ready: Callable[[Sequence[Path]], None],
) -> None:
    stop = _on_signal(signal.SIGTERM, signal.SIGINT)
    hangup = _on_signal(signal.SIGHUP)
    profile = profiles.load(settings.token.profile)
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(journal_of(settings))
        tally = Tally()
        journal.on_tried = tally.wrote
        workers = await stack.enter_async_context(
            pool(settings, prompt, settings.token.workers, tally.asked)
        )
        memory = MemoryFile(settings.agent.state_dir)
        clock = journal.clock.utc
        interval = settings.limits.scan_seconds
        scanner = Scanner(workers, settings.keys, profile, interval, memory, clock, workers.renew)
        workers.on_recovery(scanner.soon)
        await scanner.scan()
        health = Health(settings.limits.self_test_seconds)
        guarded = Guarded(workers, health)
        heads = Heads(journal, guarded, lambda: scanner.latest().audit, settings.audit)
        denials = Denials(journal, settings.audit.denials)
        # After the last request, before the workers end; in the order from the last to the first.
        stack.push_async_callback(heads.sign)
        stack.push_async_callback(denials.flush)
        rules = rules_of(settings)
        log_findings(rules.verdicts, clock())
        admission = Admission(settings.limits, tally.waited_in("admission"))
        drain = Drain(lambda: reloader.settings.limits.drain_seconds)
        notifier = Notifier()
        office = Office(
            Desk(
                rules,
                scanner,
                guarded,
                denials,
                journal.clock,
                rebuilt(rules, settings.agent.state_dir, journal.clock.now()),
                # All that the workers take at once: the pool's own queue stays short, so that a
                # place in it is worth little.
                Turns(workers.room, workers.room, tally.waited_in("token")),
                settings.token.delivery == "plain",
                observer=tally,
            )
        )
        executor = Executor(
            workers,
            profile,
            journal,
            memory,
            lambda: office.desk.rules,
            clock,
            scanner.scan,
        )
        # Before the workers and the journal are closed.
        stack.push_async_callback(executor.idle)
        examiner = Examiner(workers, scanner, health, journal, lambda: office.desk.rules.digest)
        await examiner.round()
        files = TlsFiles(settings.tls, clock) if settings.tls is not None else None
        mapping = Mapping(settings.principals)
        opening = Opening(office, admission, drain)
        # What a reload reconciles, in this order; the sockets last, so that whom they let in is
        # judged by the new rules.
        sockets = Sockets(
            lambda now, name: opening.listener(
                now, name, lambda: admin_services(office, overview, reloader, executor)
            )
        )
        parts: list[Part] = [scanner, health, office, admission, mapping, sockets]
        reloader = Reloader(read, settings, parts, notifier)
        overview = Overview(
            workers,
            scanner,
            health,
            profile.name,
            time.monotonic(),
            heads,
            concerns=(
                journal.clock.findings,
                heads.findings,
                reloader.findings,
                files.findings if files is not None else tuple,
            ),
        )
        tally.known_by(
            lambda name: name == ADMIN or name in reloader.settings.principals,
            lambda name: name in reloader.settings.keys,
        )
        certificates = Certificates(settings.tls)
        if settings.metrics is not None:
            families = Families(
                tally,
                office,
                admission,
                workers,
                scanner,
                health,
                heads,
                denials,
                certificates,
                log_events,
            )
            await stack.enter_async_context(endpoint.serving(settings.metrics, families))
        listeners = await stack.enter_async_context(Together())
        await listeners.enter(sockets)
        await sockets.open(settings)
        healths: list[SetServing] = [sockets.set_serving]
        if files is not None:
            healths.append(await listeners.enter(opening.tls_listener(settings, files, mapping)))
            _log.info("tls.listening", addresses=files.addresses)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [
            tasks.create_task(scanner.run()),
            tasks.create_task(examiner.run()),
            tasks.create_task(certificates.run()),
            tasks.create_task(heads.run()),
            tasks.create_task(denials.run()),
            tasks.create_task(notifier.keep_alive(lambda: workers.supervised)),
        ]
        front = [
            tasks.create_task(_report_health(healths, workers, scanner, health)),
            tasks.create_task(_reload_at(hangup, office, reloader)),
        ]
        _log.info(
            "agent.ready",
            version=__version__,
            rules=rules.digest,
            sockets=[str(settings.socket_path(name)) for name in settings.socket_names],
        )
        on_ready([settings.socket_path(name) for name in settings.socket_names])
        notifier.ready()
        await stop.wait()
        _log.info("agent.stopping")
        notifier.stopping()
        _cancel(front)
        drain.begin()
        for set_serving in healths:
            await set_serving(False)
        # Calls under way still need what is in the background.
        await listeners.close()
        _cancel(background)


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _on_signal(*numbers: int) -> asyncio.Event:
    """Return what any of these signals sets."""
    event = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


async def _report_health(
    healths: Sequence[SetServing], workers: Pool, scanner: Scanner, health: Health
) -> None:
    """Tell that the agent serves if it has a worker, a fresh scan, and not only keys that fail."""
    while True:
        hopeless = health.hopeless(serving(scanner.latest()))
        able = workers.ready > 0 and scanner.fresh and not hopeless
        for set_serving in healths:
            await set_serving(able)
        await asyncio.sleep(_HEALTH_SECONDS)


async def _reload_at(hangup: asyncio.Event, office: Office, reloader: Reloader) -> None:
    """Reload at each SIGHUP. One that fails is in the log, and the agent goes on as it was."""
    while True:
        await hangup.wait()
        hangup.clear()
        caller = Caller(ADMIN, "signal", secrets.token_hex(16), math.inf)
        try:
            await reload(office, caller, reloader)
        except KeycustodyError as error:
            _log.error("reload.refused", code=error.code, reason=error.message)
        except Exception:  # noqa: BLE001 - a reload must not end the agent
            _log.exception("reload.refused", code=InternalError.code)
