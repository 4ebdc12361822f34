"""A soak in words, in numbers and as a plot."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from tests.soak.soak import Outcome
from tests.soak.troubles import Trouble
from tests.soak.vitals import Sample

_WIDTH, _HEIGHT, _LEFT, _GAP = 900, 130, 70, 46
_STYLE = """
  <style>
    text { fill: #1f2328; font: 12px system-ui, sans-serif }
    .frame { fill: none; stroke: #8b949e }
    .line { fill: none; stroke: #0969da; stroke-width: 1.5 }
    .other { fill: none; stroke: #cf222e; stroke-width: 1.5 }
    .trouble { fill: #d4a72c; fill-opacity: 0.35 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .line { stroke: #58a6ff }
      .other { stroke: #ff7b72 }
    }
  </style>
"""
Points = list[tuple[float, float]]


def text(outcome: Outcome) -> str:
    """Return what a person wants to know, as Markdown."""
    codes = outcome.codes
    latencies = sorted(one.ended - one.begun for one in outcome.seen if not one.code)
    samples = outcome.samples
    calls = f"{outcome.seconds:.0f} s, {len(outcome.seen)} calls, {codes['OK']} answered "
    calls += f"({codes['OK'] / outcome.seconds:.0f}/s); {_counted(codes, leave_out='OK')}"
    made = f"{outcome.signatures} signatures, {outcome.envelopes} envelopes, "
    made += f"{outcome.records} audit records, {outcome.restarts} workers started again"
    slow = f"latency: median {1000 * _at(latencies, 0.5):.1f} ms, 99 % below "
    slow += f"{1000 * _at(latencies, 0.99):.0f} ms, longest {latencies[-1]:.2f} s"
    lines = [
        calls,
        f"{len(outcome.troubles)} troubles: {_counted(Counter(t.name for t in outcome.troubles))}",
        made,
        slow,
        f"agent's memory, MiB: {_range(samples, lambda s: s.memory / 2**20)}",
        f"workers' memory, MiB: {_range(samples, lambda s: s.workers_memory / 2**20)}",
        f"descriptors: {_range(samples, lambda s: s.descriptors)}",
        f"threads: {_range(samples, lambda s: s.threads)}",
        f"findings: {len(outcome.findings) or 'none'}",
        *(f"  {finding}" for finding in outcome.findings),
    ]
    return "".join(f"- {line}\n" for line in lines)


def plot(outcome: Outcome) -> str:
    """Return an SVG: answers and failures a second, memory, descriptors; troubles behind them."""
    start = outcome.begun
    samples = outcome.samples
    panels: list[tuple[str, Points, Points]] = [
        (
            "calls a second: answered (blue), failed (red)",
            _rate(one.ended - start for one in outcome.seen if not one.code),
            _rate(one.ended - start for one in outcome.seen if one.code),
        ),
        (
            "memory, MiB: agent (blue), its workers together (red)",
            [(one.at - start, one.memory / 2**20) for one in samples],
            [(one.at - start, one.workers_memory / 2**20) for one in samples],
        ),
        (
            "agent's descriptors (blue) and threads (red)",
            [(one.at - start, one.descriptors) for one in samples],
            [(one.at - start, one.threads) for one in samples],
        ),
    ]
    height = len(panels) * (_HEIGHT + _GAP)
    title = f"A soak of {outcome.seconds:.0f} seconds; the bars are troubles"
    drawn = [
        _panel(number * (_HEIGHT + _GAP) + 24, panel, outcome)
        for number, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" '
        f'role="img" aria-labelledby="title">\n  <title id="title">{title}</title>'
        + _STYLE
        + "".join(drawn)
        + "</svg>\n"
    )


def _panel(top: int, panel: tuple[str, Points, Points], outcome: Outcome) -> str:
    name, first, second = panel
    highest = max((y for _, y in first + second), default=1.0) or 1.0

    def x(seconds: float) -> float:
        return _LEFT + _WIDTH * min(1.0, max(0.0, seconds / outcome.seconds))

    def line(points: Points, kind: str) -> str:
        path = " ".join(f"{x(at):.1f},{top + _HEIGHT * (1 - y / highest):.1f}" for at, y in points)
        return f'  <polyline class="{kind}" points="{path}"/>\n'

    def bar(trouble: Trouble) -> str:
        left, right = x(trouble.begun - outcome.begun), x(trouble.ended - outcome.begun)
        return (
            f'  <rect class="trouble" x="{left:.1f}" y="{top}" width="{max(1, right - left):.1f}" '
            f'height="{_HEIGHT}"><title>{trouble.name}</title></rect>\n'
        )

    return (
        f'  <text x="{_LEFT}" y="{top - 7}">{name}</text>\n'
        + "".join(bar(trouble) for trouble in outcome.troubles)
        + f'  <rect class="frame" x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>\n'
        + f'  <text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">{highest:.0f}</text>\n'
        + f'  <text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>\n'
        + line(first, "line")
        + line(second, "other")
    )


def _rate(moments: Iterable[float]) -> Points:
    counted: dict[int, int] = defaultdict(int)
    for moment in moments:
        counted[int(moment)] += 1
    return [(second, counted.get(second, 0)) for second in range(max(counted, default=0) + 1)]


def _counted(counter: Counter[str], leave_out: str = "") -> str:
    return ", ".join(
        f"{number} {name}" for name, number in counter.most_common() if name != leave_out
    )


def _at(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


def _range(samples: list[Sample], of: Callable[[Sample], float]) -> str:
    values = [of(sample) for sample in samples]
    return f"{values[0]:.0f} at first, {max(values):.0f} at most, {values[-1]:.0f} at last"
