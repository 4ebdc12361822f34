"""`keys usage`: when each version last served, and what the given paths still need."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keycustody.cli import failures, options
from keycustody.cli.text import printable, table
from keycustody.errors import KeycustodyError, KeyNotFound

if TYPE_CHECKING:
    from keycustody.custody.usage import History


@dataclass(slots=True)
class _Need:
    """What files at some paths need: envelopes of the key by version, and their bytes."""

    files: int = 0
    envelopes: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    failed: list[tuple[str, KeycustodyError]] = field(default_factory=list)


@click.command(short_help="Tell what still needs each version.")
@click.argument("name")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@options.config_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage(name: str, paths: tuple[str, ...], config: Path, as_json: bool) -> None:
    """Tell when each version of the key NAME last served, and what PATHs still need.

    The first is what this agent's audit journal says, as far as it reaches back, of each version
    that this agent has seen; other agents on the token have journals of their own. The second is
    what the headers of the envelopes at PATHs say; nothing else was looked at. Needs no running
    agent.

    \b
    Examples:
      keycustody keys usage invoices --config hsm_config/softhsm.toml
      keycustody keys usage invoices /srv/invoices --config hsm_config/softhsm.toml --json
    """
    settings = options.load_settings(config)
    if name not in settings.keys:
        raise KeyNotFound(f"The settings declare no key {name!r}.")
    from keycustody.custody.audit import records
    from keycustody.custody.keys.evidence import name_and_number
    from keycustody.custody.keys.memory import MemoryFile
    from keycustody.custody.usage import history

    past = history(records(settings.agent.state_dir), name)
    need = _scan(name, paths)
    seen = map(name_and_number, MemoryFile(settings.agent.state_dir).memory.versions)
    known = [number for owner, number in seen if owner == name]
    # Also those in between that none of these knows: whoever looks wants to destroy one.
    newest = max((*past.versions, *need.envelopes, *known), default=0)
    versions = list(range(1, newest + 1))
    if as_json:
        document = _document(name, paths, past, need, versions)
        click.echo(json.dumps(document, indent=2))
    else:
        _print(paths, past, need, versions)
    if need.failed:
        raise SystemExit(failures.FAILED)


def _scan(name: str, paths: tuple[str, ...]) -> _Need:
    from keycustody.client import slots, walking

    need = _Need()
    for found in walking.files(paths, lambda _: ()):
        if not isinstance(found, str):
            need.failed.append(found)
            continue
        need.files += 1
        try:
            seen = slots.look(found)
        except KeycustodyError as error:
            need.failed.append((found, error))
            continue
        if seen is not None and seen.header.key == name:
            need.envelopes[seen.header.version] += 1
            need.bytes[seen.header.version] += seen.identity[2]
    return need


def _document(
    name: str, paths: tuple[str, ...], past: "History", need: _Need, versions: list[int]
) -> dict[str, object]:
    return {
        "key": name,
        "journal_since": past.since or None,
        "paths": list(paths),
        "files": need.files,
        "versions": [
            {
                "version": number,
                "last_served": served.last if (served := past.versions.get(number)) else None,
                "operation": served.operation if served else None,
                "requests": served.requests if served else 0,
                "envelopes": need.envelopes[number],
                "bytes": need.bytes[number],
            }
            for number in versions
        ],
        "failed": [
            {"path": path, "code": error.code, "message": error.message}
            for path, error in need.failed
        ],
    }


def _print(paths: tuple[str, ...], past: "History", need: _Need, versions: list[int]) -> None:
    for path, error in need.failed:
        click.echo(
            f"keycustody: {printable(path)}: {printable(error.message)} [{error.code}]", err=True
        )
    rows = []
    for number in versions:
        served = past.versions.get(number)
        last = f"{served.last} ({served.operation})" if served else "not in the journal"
        shown = (str(need.envelopes[number]), str(need.bytes[number])) if paths else ("?", "?")
        rows.append((str(number), last, *shown))
    table(("VERSION", "LAST SERVED HERE", "ENVELOPES", "BYTES"), rows)
    click.echo()
    if past.since:
        click.echo(f"The audit journal reaches back to {past.since}; it tells nothing of before.")
        click.echo("It is this agent's alone; what other agents on the token served is in theirs.")
    else:
        click.echo("The audit journal has no record; it tells nothing.")
    if paths:
        looked = "1 file" if need.files == 1 else f"{need.files} files"
        was = "was" if need.files == 1 else "were"
        click.echo(f"{looked} at the given paths {was} looked at, and nothing else.")
    else:
        click.echo("No paths were given, so it is not known what still needs which version.")
