"""docs/metrics.md lists the events of the log that the code writes, with their levels."""

import re

from tests.integration.command import PROJECT

_CALL = re.compile(r'_log\.(\w+)\(\s*"([a-z_.]+)"')
_ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| (\w+) \|", re.MULTILINE)


def test_every_event_is_documented_and_no_other() -> None:
    written = {
        (event, "error" if level == "exception" else level)
        for path in (PROJECT / "agent").rglob("*.py")
        for level, event in _CALL.findall(path.read_text())
    }
    levels = dict(_ROW.findall((PROJECT / "docs" / "metrics.md").read_text()))
    assert set(levels) == {event for event, _ in written}
    # An event that has two levels is listed with the worse.
    order = ("debug", "info", "warning", "error")
    worst = {
        event: max((level for name, level in written if name == event), key=order.index)
        for event, _ in written
    }
    assert {event: level for event, level in levels.items() if level != worst[event]} in (
        {},
        {"token.scan_failed": "warning"},  # a failure that nobody foresaw has a traceback
    )
