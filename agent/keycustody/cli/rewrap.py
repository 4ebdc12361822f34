"""`rewrap`: files moved to the newest version of their keys, by their headers' slots alone."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keycustody.cli import failures, options, progress
from keycustody.cli.text import facts, printable

if TYPE_CHECKING:
    from keycustody.client.rewrap_files import FileResult

#: Results in the order of the report, with their names for people.
_RESULTS = {
    "moved": "moved",
    "newest": "already newest",
    "mended": "mended",
    "no-envelope": "no envelope",
    "other-key": "other key",
    "failed": "failed",
}


@click.command(short_help="Move envelopes to the newest version of their key.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--key", "names", multiple=True, metavar="NAME", help="A key; may be repeated.")
@click.option("--any", "accept_any", is_flag=True, help="Envelopes of every key.")
@click.option("--dry-run", is_flag=True, help="Ask the agent, and write no file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@options.socket_option()
def rewrap(
    paths: tuple[str, ...],
    names: tuple[str, ...],
    accept_any: bool,
    dry_run: bool,
    as_json: bool,
    socket: Path | None,
) -> None:
    """Move envelopes to the newest version of their key, in place.

    Only the slot of each header is written, 78 bytes; the body stays as it is. Folders are searched
    with all that is below them, symbolic links are not followed, and what is no envelope is left
    alone. It can be interrupted at any point: run it again, and it goes on.

    Needs the operation `rewrap` on the keys. Exit status 0 only if no file failed.

    \b
    Examples:
      keycustody rewrap /srv/invoices --key invoices --dry-run
      keycustody rewrap /srv/invoices big.csv.kc --key invoices --json
    """
    if bool(names) == accept_any:
        raise click.UsageError("Say whose envelopes are moved: --key NAME, or --any.")
    from keycustody.client import ANY

    counted: Counter[str] = Counter()
    failed: list[FileResult] = []
    with options.connect(socket) as agent, progress.count("rewrapping") as shown:
        for result in agent.rewrap_files(paths, keys=ANY if accept_any else names, dry_run=dry_run):
            counted[result.result] += 1
            if result.error is not None:
                failed.append(result)
            if shown is not None:
                shown(counted.total(), counted["moved"])
    if as_json:
        click.echo(json.dumps(_document(counted, failed, dry_run=dry_run), indent=2))
    else:
        _print(counted, failed, dry_run=dry_run)
    if failed:
        raise SystemExit(failures.FAILED)


def _scanned(counted: Counter[str]) -> int:
    # A mended file is looked at like any other afterwards.
    return counted.total() - counted["mended"]


def _document(
    counted: Counter[str], failed: list["FileResult"], *, dry_run: bool
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "scanned": _scanned(counted),
        **{name.replace("-", "_"): counted[name] for name in _RESULTS if name != "failed"},
        "failed": [
            {"path": one.path, "code": one.error.code, "message": one.error.message}
            for one in failed
            if one.error is not None
        ],
    }


def _print(counted: Counter[str], failed: list["FileResult"], *, dry_run: bool) -> None:
    for one in failed:
        if one.error is not None:
            line = f"keycustody: {printable(one.path)}: {printable(one.error.message)}"
            click.echo(f"{line} [{one.error.code}]", err=True)
    names = _RESULTS | ({"moved": "would be moved"} if dry_run else {})
    facts(
        [
            ("scanned", str(_scanned(counted))),
            *((label, str(counted[name])) for name, label in names.items()),
        ]
    )
