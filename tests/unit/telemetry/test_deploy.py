"""Alerts and dashboard: accepted by Prometheus's own tool, and about metrics that there are."""

import json
import re
import subprocess
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily

from keycustody.telemetry.families import METRICS
from tests.integration.command import PROJECT

RULES = PROJECT / "deploy" / "prometheus" / "keycustody.rules.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "keycustody.json"


def _names() -> set[str]:
    names = set()
    for name, (kind, _, _) in METRICS.items():
        suffixes: tuple[str, ...] = ("",)
        if kind is CounterMetricFamily:
            suffixes = ("_total",)
        elif kind is InfoMetricFamily:
            suffixes = ("_info",)
        elif kind is HistogramMetricFamily:
            suffixes = ("_bucket", "_sum", "_count")
        names |= {f"keycustody_{name}{suffix}" for suffix in suffixes}
    return names


def _queries(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["expr"]] if "expr" in value else []
        return own + [query for inner in value.values() for query in _queries(inner)]
    if isinstance(value, list):
        return [query for inner in value for query in _queries(inner)]
    return []


@pytest.fixture(scope="session")
def promtool() -> str:
    done = subprocess.run(
        [PROJECT / "tools" / "promtool.sh"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(done.stderr.strip())
    return done.stdout.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint-fatal", RULES),
        ("test", "rules", RULES.with_name("keycustody.test.yml")),
    ],
    ids=["check", "test"],
)
def test_promtool_accepts_the_alerts(promtool: str, arguments: tuple[Any, ...]) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_use_metrics_that_there_are() -> None:
    text = "\n".join(re.findall(r"expr: (.*)", RULES.read_text()))
    used = set(re.findall(r"\bkeycustody_\w+", text))
    assert used
    assert used <= _names()


def test_each_alert_is_tested_says_what_is_wrong_and_names_a_runbook() -> None:
    text = RULES.read_text()
    alerts = re.findall(r"- alert: (\w+)", text)
    tested = RULES.with_name("keycustody.test.yml").read_text()
    assert set(alerts) == set(re.findall(r'alertname="(\w+)"', tested))
    assert len(re.findall(r"summary: ", text)) == len(alerts)
    runbooks = re.findall(r"runbook: (docs/runbooks/[a-z-]+\.md)", text)
    assert len(runbooks) == len(alerts)
    assert all((RULES.parents[2] / runbook).is_file() for runbook in runbooks)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    queries = _queries(json.loads(DASHBOARD.read_text()))
    used = {name for query in queries for name in re.findall(r"\bkeycustody_\w+", query)}
    assert len(used) > 10
    assert used <= _names()
