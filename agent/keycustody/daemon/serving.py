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
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import uvloop

from keycustody import __version__
from keycustody.config import ADMIN, Settings
from keycustody.custody import listing
from keycustody.custody.access.policy import log_findings
from keycustody.custody.access.rules import rules_of
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
from keycustody.daemon.audit_heads import journal_of
from keycustody.daemon.listening import Sockets, principal_of
from keycustody.daemon.logs import log_to_stderr
from keycustody.daemon.reloading import Reloader
from keycustody.daemon.wiring import Prompt, pool
from keycustody.errors import InternalError, KeycustodyError
from keycustody.service.dispatch import Gate, always
from keycustody.service.handlers import admin_services, services
from keycustody.service.listeners import Listener, SetServing, listener, tls_listener
from keycustody.service.tls import TlsFiles, by_certificate
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
    if unlocked:
        _log.warning("memory.unlocked", reason=unlocked)
    with hold(settings.agent.state_dir):
        uvloop.run(_serve(read, settings, log_events, prompt, on_ready))


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
        office = Office(
            Desk(
                rules,
                scanner,
                guarded,
                denials,
                journal.clock,
                rebuilt(rules, settings.agent.state_dir, journal.clock.now()),
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
        # What a reload reconciles, in this order; the sockets last, so that whom they let in is
        # judged by the new rules.
        sockets = Sockets(
            lambda now, name: _listener(now, name, office, overview, reloader, executor)
        )
        reloader = Reloader(read, settings, [scanner, health, office, mapping, sockets])
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
                tally, office, workers, scanner, health, heads, denials, certificates, log_events
            )
            await stack.enter_async_context(endpoint.serving(settings.metrics, families))
        await stack.enter_async_context(sockets)
        await sockets.open(settings)
        healths: list[SetServing] = [sockets.set_serving]
        if files is not None:
            tls = _tls_listener(settings, files, mapping, office)
            healths.append(await stack.enter_async_context(tls))
            _log.info("tls.listening", addresses=files.addresses)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        background = [
            tasks.create_task(scanner.run()),
            tasks.create_task(examiner.run()),
            tasks.create_task(certificates.run()),
            tasks.create_task(heads.run()),
            tasks.create_task(denials.run()),
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
        await stop.wait()
        _log.info("agent.stopping")
        for task in background:
            task.cancel()


def _on_signal(*numbers: int) -> asyncio.Event:
    """Return what any of these signals sets."""
    event = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event


def _listener(
    settings: Settings,
    name: str,
    office: Office,
    overview: Overview,
    reloader: Reloader,
    executor: Executor,
) -> AbstractAsyncContextManager[Listener]:
    gate = Gate(always(name), office.deadline_seconds, partial(listing.reject, office))
    return listener(
        settings.socket_path(name),
        principal_of(settings, name),
        gate,
        admin_services(office, overview, reloader, executor) if name == ADMIN else services(office),
        settings.limits.request_bytes,
    )


def _tls_listener(
    settings: Settings, files: TlsFiles, mapping: Mapping, office: Office
) -> AbstractAsyncContextManager[SetServing]:
    """Operators have no certificate: what administers is on their own socket alone."""
    gate = Gate(
        by_certificate(files, mapping.current),
        office.deadline_seconds,
        partial(listing.reject, office),
    )
    return tls_listener(
        files.addresses, files.credentials(), gate, services(office), settings.limits.request_bytes
    )


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
