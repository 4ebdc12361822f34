"""Writes a run: one JSON, a page of tables, and a plot for each curve."""

import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.groups import GROUPS
from benchmarks.plots import plot
from benchmarks.results import Figure, Ratio, Results

DOCS = Path(__file__).parents[1] / "docs"
_NOTES = Path(__file__).with_name("notes.md")
_HEAD = """# Performance

Written by `make bench`; nothing here is typed by hand but the notes. Ratios are medians, with their
quartiles, of ratios taken within one round, in which all that is compared ran in turn; a target in
**bold** is missed. `docs/performance/figures.json` has every figure, ratio and curve.
"""

_QUICK = "This was a quick run (`make bench QUICK=1`): fewer rounds and sizes, so trust it less.\n"


def write(results: Results, folder: Path, *, quick: bool) -> None:
    """Write performance.md and performance/ below the folder."""
    beside = folder / "performance"
    beside.mkdir(parents=True, exist_ok=True)
    whole = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine.described(),
        "versions": dict(machine.versions()),
        **results.as_json(),
    }
    (beside / "figures.json").write_text(json.dumps(whole, indent=1) + "\n")
    for old in beside.glob("*.svg"):
        old.unlink()
    parts = [_HEAD, *([_QUICK] if quick else []), _machine(whole), _summary(results)]
    for group, module in GROUPS.items():
        title, _, prose = (module.__doc__ or "").partition("\n\n")
        tables = _group(results, group, beside)
        if tables:
            parts.append(f"## {title}\n\n{prose.strip()}\n\n{tables}")
    if results.absent:
        told = "\n".join(f"* {name}: {why}" for name, why in sorted(results.absent.items()))
        parts.append(f"## Absent\n\nNot installed when this was measured:\n\n{told}\n")
    if _NOTES.exists():
        parts.append(_NOTES.read_text())
    page = "\n".join(part.rstrip() + "\n" for part in parts)
    (folder / "performance.md").write_text(page)
    print(_summary(results))


def _machine(whole: dict[str, dict[str, str]]) -> str:
    rows = {**whole["machine"], **whole["versions"]}
    told = ", ".join(f"{name} {value}" for name, value in rows.items())
    return f"Measured {whole['made']}: {told}.\n"


def _summary(results: Results) -> str:
    rows = [
        f"| {name} | {_target(ratio)} | {ratio.median:.2f} | {ratio.low:.2f} to {ratio.high:.2f} |"
        for name, ratio in results.ratios.items()
        if ratio.target is not None
    ]
    return _table("## Targets\n", "| what | target | median | quartiles |", rows)


def _group(results: Results, group: str, beside: Path) -> str:
    mine = f"{group}: "
    figures = [
        _row(name.removeprefix(mine), figure)
        for name, figure in results.figures.items()
        if name.startswith(mine)
    ]
    ratios = [
        f"| {name.removeprefix(mine)} | {ratio.median:.2f} | {ratio.low:.2f} to {ratio.high:.2f} |"
        for name, ratio in results.ratios.items()
        if name.startswith(mine)
    ]
    parts = [
        _table("", "| ratio | median | quartiles |", ratios),
        _table("", "| figure | median | quartiles | |", figures),
    ]
    for name, curve in results.curves.items():
        if name.startswith(mine):
            short = name.removeprefix(mine)
            file = short.replace(" ", "-") + ".svg"
            plot(curve, beside / file)
            parts.append(f"![{short}](performance/{file})\n")
    return "\n".join(part for part in parts if part)


def _row(name: str, figure: Figure) -> str:
    scale, unit = (1e6, "us") if figure.unit == "s" else (1, figure.unit)
    median, low, high = (
        f"{value * scale:,.{0 if value * scale >= 100 else 1}f}"
        for value in (figure.median, figure.low, figure.high)
    )
    return f"| {name} | {median} | {low} to {high} | {unit} |"


def _target(ratio: Ratio) -> str:
    told = f"{'at least' if ratio.up else 'at most'} {ratio.target:g}"
    return told if ratio.met else f"**{told}**"


def _table(before: str, head: str, rows: list[str]) -> str:
    if not rows:
        return ""
    rule = "|" + " --- |" * (head.count("|") - 1)
    return "\n".join([*([before] if before else []), head, rule, *rows, ""])
