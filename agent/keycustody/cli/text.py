"""Text for people: safe to print, aligned, and no richer than where it goes.

What is printed may come from an envelope or a token, which anybody may have written: whatever is
not printable is shown as its escape, so that it cannot drive the terminal.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click


def printable(text: str) -> str:
    """The text with every character that is not printable, line ends included, escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def age(created: str) -> str:
    """How old what was made at that time (RFC 3339) is, in days; "" if the time is not known."""
    try:
        made = datetime.fromisoformat(created)
    except ValueError:
        return ""
    days = (datetime.now(UTC) - made).days
    return f"{days} day{'' if days == 1 else 's'} old"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: a drawn one on a terminal, aligned plain columns elsewhere."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and _draw(columns, cells):
        return
    # No line ends in spaces.
    widths = [max(len(row[i]) for row in [columns, *cells]) for i in range(len(columns) - 1)]
    for row in [columns, *cells]:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*padded, row[-1]]).rstrip())


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        label = click.style(printable(name).ljust(width), bold=True)
        click.echo(f"{label}  {printable(value)}")


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # Text, because a str would be searched for rich's markup.
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)
    return True
