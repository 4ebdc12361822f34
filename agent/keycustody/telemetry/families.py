"""Prometheus's samples, made of the tally and of what the agent knows of itself.

One table says of each metric its type, labels and meaning; docs/metrics.md says the same at length,
and a test compares the two with a scrape. `collect` only reads and keeps nothing.
"""

import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from keycustody import __version__
from keycustody.custody.admission import Admission
from keycustody.custody.audit import Standing
from keycustody.custody.health import Verdict
from keycustody.custody.keys.catalogue import Catalogue
from keycustody.custody.keys.key import Key, Version
from keycustody.custody.operation import Office
from keycustody.formats.state import State
from keycustody.telemetry.certificates import Certificates
from keycustody.telemetry.tally import BOUNDS, Histogram, Tally

_COUNTER, _GAUGE, _HISTOGRAM, _INFO = (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
_KEY = ("key", "version")

#: Name without `keycustody_` and `_total`: type, labels, help.
METRICS: Mapping[str, tuple[type[Metric], Sequence[str], str]] = {
    "build": (_INFO, (), "Which agent this is."),
    "rules": (_INFO, (), "The rules in force, by hash."),
    "start_time_seconds": (_GAUGE, (), "When the agent began, in Unix time."),
    "requests": (
        _COUNTER,
        ("principal", "operation", "key", "result"),
        "Requests that were answered or refused.",
    ),
    "items": (_COUNTER, ("operation", "result"), "Items of requests, by what became of each."),
    "requests_under_way": (_GAUGE, (), "Requests that are being served."),
    "request_seconds": (_HISTOGRAM, ("operation",), "A request, from its arrival to its answer."),
    "request_rest_seconds": (
        _HISTOGRAM,
        ("operation",),
        "What of a request was not spent waiting for the token: decision, audit record, and so on.",
    ),
    "accepted_requests": (_GAUGE, ("principal",), "Requests that are accepted and not over."),
    "accepted_bytes": (_GAUGE, ("principal",), "Bytes of requests and answers held for them."),
    "turn_seconds": (
        _HISTOGRAM,
        ("place",),
        "Waits for a turn, of those who did not get one at once.",
    ),
    "overloaded": (
        _COUNTER,
        ("principal", "limit"),
        "Requests that were refused because a limit was reached.",
    ),
    "token_queue_seconds": (_HISTOGRAM, ("request",), "From the queue to a worker that begins."),
    "token_work_seconds": (_HISTOGRAM, ("request",), "A worker at work, its pipe included."),
    "token_up": (_GAUGE, (), "Can the token be used?"),
    "token_breaker_open": (_GAUGE, (), "Are calls refused at once, because it cannot?"),
    "token_breaker_openings": (_COUNTER, (), "How often that began."),
    "token_queue": (_GAUGE, (), "Requests that wait for a worker."),
    "workers_wanted": (_GAUGE, (), "Worker processes that there should be."),
    "workers_ready": (_GAUGE, (), "Worker processes that serve."),
    "worker_restarts": (_COUNTER, (), "Worker processes that were started again."),
    "worker_hangs": (_COUNTER, (), "Worker processes that did not answer and were killed."),
    "worker_recycles": (_COUNTER, ("reason",), "Worker processes that had used too much."),
    "scan_age_seconds": (_GAUGE, (), "Since the last good scan of the token."),
    "scan_fresh": (_GAUGE, (), "Is that scan new enough to serve by?"),
    "findings": (_GAUGE, (), "What that scan found amiss."),
    "key_version_state": (_GAUGE, (*_KEY, "state"), "1 for the state of each version."),
    "key_version_age_seconds": (_GAUGE, _KEY, "Since the version was made."),
    "key_rotation_days": (_GAUGE, ("key",), "Days until a new version is due; negative: overdue."),
    "self_test_ok": (_GAUGE, _KEY, "Did the version pass its last self-test?"),
    "self_test_age_seconds": (_GAUGE, _KEY, "Since that test."),
    "audit_sequence": (_GAUGE, (), "Number of the last durable audit record."),
    "budget_used": (_GAUGE, ("principal", "grant", "window"), "Used of a budget or a rate."),
    "budget_limit": (_GAUGE, ("principal", "grant", "window"), "What may be used of it."),
    "audit_writable": (_GAUGE, (), "Did the last write of the audit journal succeed?"),
    "audit_write_failures": (_COUNTER, (), "Writes of the audit journal that failed."),
    "audit_write_seconds": (
        _HISTOGRAM,
        (),
        "A write of the audit journal: the records that came together, made durable.",
    ),
    "audit_unsigned_records": (_GAUGE, (), "Audit records that no signed head covers."),
    "audit_unsigned_seconds": (_GAUGE, (), "Since the first of them: how far heads lag behind."),
    "audit_heads_ok": (_GAUGE, (), "Can audit heads be signed?"),
    "audit_denials_counted": (_COUNTER, (), "Denials without an audit record of their own."),
    "certificate_start_seconds": (
        _GAUGE,
        ("setting", "subject"),
        "When what ends next began, in Unix time.",
    ),
    "certificate_expiry_seconds": (
        _GAUGE,
        ("setting", "subject"),
        "When a certificate or a revocation list ends, in Unix time.",
    ),
    "log_events": (_COUNTER, ("level",), "Lines in the log."),
}


class Workers(Protocol):
    """How the workers are."""

    @property
    def wanted(self) -> int: ...
    @property
    def ready(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def broken(self) -> bool: ...
    @property
    def openings(self) -> int: ...
    @property
    def hangs(self) -> int: ...
    @property
    def recycles(self) -> Mapping[str, int]: ...


class Scans(Protocol):
    """How the scans are."""

    @property
    def fresh(self) -> bool: ...
    def latest(self) -> Catalogue: ...
    def age(self) -> float: ...


class Tests(Protocol):
    """How the self-tests are."""

    @property
    def verdicts(self) -> Mapping[str, Verdict]: ...


class SignedHeads(Protocol):
    """How the audit heads are."""

    @property
    def able(self) -> bool: ...
    def standing(self) -> Standing: ...


class Denials(Protocol):
    """How many denials were too many for a record each."""

    @property
    def counted(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Families:
    """Everything that a scrape tells."""

    tally: Tally
    office: Office
    admission: Admission
    workers: Workers
    scans: Scans
    tests: Tests
    heads: SignedHeads
    denials: Denials
    certificates: Certificates
    log_events: Mapping[str, int]
    started: float = field(default_factory=time.time)

    def collect(self) -> Iterable[Metric]:
        """Return every metric as it is now."""
        samples = [
            *self._agent(),
            *self._audit(),
            *self._requests(),
            *self._load(),
            *self._token(),
            *self._keys(time.time(), time.monotonic()),
        ]
        return _families(samples)

    def _agent(self) -> Iterator["_Sample"]:
        desk = self.office.desk
        yield "build", (), {"version": __version__, "python": platform.python_version()}
        yield "rules", (), {"sha256": desk.rules.digest}
        yield "start_time_seconds", (), self.started
        yield "requests_under_way", (), desk.traffic.requests
        for use in desk.counters.usage(desk.clock.now()):
            limit = (use.principal, use.grant, str(use.window))
            yield "budget_used", limit, use.used
            yield "budget_limit", limit, use.limit
        # Of several of one name, the one that ends first.
        latest_first = sorted(
            self.certificates.expiries, key=lambda one: one.not_after, reverse=True
        )
        for who, one in {(one.setting, one.subject): one for one in latest_first}.items():
            yield "certificate_start_seconds", who, one.not_before.timestamp()
            yield "certificate_expiry_seconds", who, one.not_after.timestamp()
        for level, number in self.log_events.items():
            yield "log_events", (level,), number

    def _audit(self) -> Iterator["_Sample"]:
        standing = self.heads.standing()
        yield "audit_sequence", (), self.office.desk.audit.head.sequence
        yield "audit_writable", (), self.tally.writable
        yield "audit_write_failures", (), self.tally.failed_writes
        yield "audit_write_seconds", (), self.tally.writes
        yield "audit_unsigned_records", (), standing.unsigned
        yield "audit_unsigned_seconds", (), standing.seconds
        yield "audit_heads_ok", (), self.heads.able
        yield "audit_denials_counted", (), self.denials.counted

    def _requests(self) -> Iterator["_Sample"]:
        tally = self.tally
        for labels, number in tally.requests.items():
            yield "requests", labels, number
        for outcome, number in tally.items.items():
            yield "items", outcome, number
        for name, histograms in (
            ("request_seconds", tally.seconds),
            ("request_rest_seconds", tally.rest),
            ("token_queue_seconds", tally.queued),
            ("token_work_seconds", tally.worked),
        ):
            for label, histogram in histograms.items():
                yield name, (label,), histogram

    def _load(self) -> Iterator["_Sample"]:
        for principal, load in self.admission.loads.items():
            yield "accepted_requests", (principal,), load.requests
            yield "accepted_bytes", (principal,), load.bytes
        for refusal, number in self.admission.refused.items():
            yield "overloaded", refusal, number
        for place, histogram in self.tally.waits.items():
            yield "turn_seconds", (place,), histogram

    def _token(self) -> Iterator["_Sample"]:
        workers, scans = self.workers, self.scans
        yield "token_up", (), workers.ready > 0
        yield "token_breaker_open", (), workers.broken
        yield "token_breaker_openings", (), workers.openings
        yield "token_queue", (), workers.queued
        yield "workers_wanted", (), workers.wanted
        yield "workers_ready", (), workers.ready
        yield "worker_restarts", (), workers.restarts
        yield "worker_hangs", (), workers.hangs
        for reason, number in workers.recycles.items():
            yield "worker_recycles", (reason,), number
        yield "scan_age_seconds", (), scans.age()
        yield "scan_fresh", (), scans.fresh
        yield "findings", (), len(scans.latest().findings)

    def _keys(self, now: float, ticks: float) -> Iterator["_Sample"]:
        for key in self.scans.latest().keys.values():
            for version in key.versions:
                labels = (key.name, str(version.number))
                yield "key_version_state", (*labels, version.state.value), 1
                if (made := _made(version)) is not None:
                    yield "key_version_age_seconds", labels, now - made
            if (days := _days_to_rotation(key, now)) is not None:
                yield "key_rotation_days", (key.name,), days
        for label, verdict in self.tests.verdicts.items():
            name, _, number = label.rpartition(".v")
            yield "self_test_ok", (name, number), not verdict.failure
            yield "self_test_age_seconds", (name, number), ticks - verdict.taken


_Value = float | Histogram | dict[str, str]
_Sample = tuple[str, tuple[str, ...], _Value]


def _families(samples: Iterable[_Sample]) -> list[Metric]:
    """Return a family for each metric of the table, also for those without a sample."""
    made = {
        name: kind(f"keycustody_{name}", text, labels=labels)  # type: ignore[call-arg]
        for name, (kind, labels, text) in METRICS.items()
    }
    for name, labels, value in samples:
        family = made[name]
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, Histogram)
            counts = accumulate(value.counts)
            bounds = [*map(str, BOUNDS), "+Inf"]
            family.add_metric(labels, list(zip(bounds, counts, strict=True)), value.total)
        elif isinstance(family, InfoMetricFamily):
            assert isinstance(value, dict)
            family.add_metric(labels, value)
        elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
            assert isinstance(value, int | float)
            family.add_metric(labels, float(value))
    return list(made.values())


def _made(version: Version) -> float | None:
    """Return when a version was made, in Unix time; None where the token does not keep it."""
    try:
        made = datetime.fromisoformat(version.created)
    except ValueError:
        return None
    return made.replace(tzinfo=made.tzinfo or UTC).timestamp()


def _days_to_rotation(key: Key, now: float) -> float | None:
    """Return the days until the newest active version is as old as it may be."""
    active = [version for version in key.versions if version.state is State.ACTIVE]
    if key.declared.rotation_days is None or not active:
        return None
    made = _made(active[-1])
    return None if made is None else key.declared.rotation_days - (now - made) / 86_400
