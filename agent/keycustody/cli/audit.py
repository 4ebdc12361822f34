"""`audit`: check, watch and search the journal. Works without a running agent, and beside one."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keycustody.cli import audit_lines, options
from keycustody.cli.text import printable
from keycustody.errors import AgentUnreachable, InvalidRequest

if TYPE_CHECKING:
    from keycustody.custody.audit import Report
    from keycustody.formats.audit import AuditRecord
    from keycustody.formats.signed_note import VerifierKey

#: Seconds between two looks at the newest file.
_POLL_SECONDS = 0.2
#: A file of verifier keys or a signed head is no larger.
_FILE_BYTES = 64 * 1024

_where = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A copy: file or folder.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def audit() -> None:
    """Check, watch and search the audit journal (docs/audit.md).

    \b
    Examples:
      keycustody audit verify --config hsm_config/softhsm.toml
      keycustody audit tail -f --config hsm_config/softhsm.toml
      keycustody audit search --principal demo --since 2h --config hsm_config/softhsm.toml
    """


@audit.command(short_help="Verify every record, file and signed head.")
@options.config_option(required=False)
@_where
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="VKEY|FILE",
    help="What verifies signed heads, as `audit key` prints it; may be repeated.",
)
@click.option(
    "--expect-head", metavar="FILE|-", help="A signed head that must be in it, kept elsewhere."
)
@click.option("--partial", is_flag=True, help="Earlier files are kept elsewhere.")
@_as_json
def verify(
    config: Path | None,
    path: Path | None,
    keys: tuple[str, ...],
    expect_head: str | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Verify the audit journal: every record, file and signed head.

    Ends by saying what it cannot know. Exit status 3 says that the journal is not what was written.

    \b
    Examples:
      keycustody audit verify --config hsm_config/softhsm.toml
      keycustody audit verify --file copies/ --key audit.vkey --expect-head kept.head
    """
    folder = _folder(config, path)
    from keycustody.custody import audit as journal

    report = journal.verify(
        folder,
        keys=[key for text in keys for key in _keys(text)],
        expected=None if expect_head is None else _read(expect_head),
        partial=partial,
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report) | {"path": str(report.path)}, indent=2))
    else:
        _describe(report)


@audit.command()
@options.config_option()
def key(config: Path) -> None:
    """Print what verifies the journal's signed heads. Keep it away from this machine.

    A running agent is asked on its operators' socket; without one, the token is read.

    \b
    Example:
      keycustody audit key --config hsm_config/softhsm.toml > audit.vkey
    """
    settings = options.load_settings(config)
    from keycustody import daemon
    from keycustody.config import ADMIN
    from keycustody.errors import TokenNotProvisioned

    try:
        with options.connect(settings.socket_path(ADMIN)) as agent:
            status = agent.status()
        line, where = status.audit.verifier_key, f"token {status.token.label}, told by the agent"
    except AgentUnreachable:
        line, where = daemon.audit_key(settings, prompt=options.pin_prompt())
    if not line:
        raise TokenNotProvisioned("Nothing on the token can sign audit heads; see `status`.")
    click.echo(f"# {printable(where)}")
    click.echo(line)


@audit.command(short_help="Show the newest records, or follow the journal.")
@options.config_option(required=False)
@_where
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="How many.",
)
@click.option("-f", "follow", is_flag=True, help="Go on with what is written.")
@_as_json
def tail(config: Path | None, path: Path | None, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest records; with -f, follow the journal across its files.

    \b
    Example:
      keycustody audit tail -f --config hsm_config/softhsm.toml
    """
    folder = _folder(config, path)
    from keycustody.custody.audit import reading

    found = reading.last(folder, max(1, count))
    show = _printer(as_json)
    show(found[len(found) - min(count, len(found)) :])
    if follow:
        follower = reading.Follower(folder, found[-1][1].seq if found else 0)
        while True:
            show(follower.new())
            time.sleep(_POLL_SECONDS)


@audit.command()
@options.config_option(required=False)
@_where
@click.option("--principal", metavar="NAME", help="Who asked.")
@click.option("--key", metavar="NAME", help="With which key.")
@click.option(
    "--operation", metavar="NAME", help="What: sign, unwrap, rotate, ... (docs/audit.md)."
)
@click.option("--result", metavar="CODE", help="`OK` or an error code.")
@click.option("--request", metavar="ID", help="The id that an error or a log line names.")
@click.option("--since", metavar="TIME", help="As in 2026-01-31, 2026-01-31T12:00Z, 90m, 2h, 7d.")
@click.option("--until", metavar="TIME", help="Likewise.")
@_as_json
def search(
    config: Path | None,
    path: Path | None,
    since: str | None,
    until: str | None,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """Show the records that fit all of what is given, oldest first.

    \b
    Examples:
      keycustody audit search --result PERMISSION_DENIED --since 7d --config hsm_config/softhsm.toml
      keycustody audit search --key invoices --operation unwrap --json --config agent.toml
    """
    folder = _folder(config, path)
    from keycustody.cli import audit_words
    from keycustody.custody.audit import reading

    audit_words.check("operation", wanted["operation"], audit_words.OPERATIONS)
    audit_words.check("result", wanted["result"], audit_words.RESULTS)
    start = audit_lines.moment(since) if since else None
    end = audit_lines.stamp_of(audit_lines.moment(until)) if until else None
    fields = {name: value for name, value in wanted.items() if value is not None}
    show = _printer(as_json)
    for line, record in reading.lines_since(folder, start):
        if end is not None and record.time > end:
            break
        if all(getattr(record, name) == value for name, value in fields.items()):
            show([(line, record)])


def _folder(config: Path | None, path: Path | None) -> Path:
    # An explicit path wins over settings that only the environment named.
    if path is not None:
        return path
    if config is None:
        raise click.UsageError("Say which journal: --config, or --file.")
    return options.load_settings(config).agent.state_dir


def _printer(as_json: bool) -> Callable[[Iterable[tuple[bytes, "AuditRecord"]]], None]:
    def show(found: Iterable[tuple[bytes, "AuditRecord"]]) -> None:
        for line, record in found:
            click.echo(line if as_json else audit_lines.describe(record))
        sys.stdout.flush()

    return show


def _keys(text: str) -> list["VerifierKey"]:
    """Return the verifier keys of an argument: one itself, or a file with one a line."""
    from keycustody.formats.signed_note import VerifierKey

    lines = [text] if "+" in text and not Path(text).exists() else _read(text).splitlines()
    found = [VerifierKey.decode(one) for line in lines if (one := line.partition("#")[0].strip())]
    if not found:
        raise InvalidRequest(f"There is no verifier key in {text}.")
    return found


def _read(name: str) -> str:
    from keycustody.errors import FileUnusable

    try:
        if name == "-":
            return sys.stdin.buffer.read(_FILE_BYTES).decode()
        with Path(name).open("rb") as stream:
            return stream.read(_FILE_BYTES).decode()
    except OSError as error:
        raise FileUnusable(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not text.") from error


def _describe(report: "Report") -> None:
    click.echo(f"The chain of {report.records} records is intact; its head is {report.head}.")
    if report.heads:
        fit = "signed head fits" if report.heads == 1 else "signed heads fit"
        click.echo(f"{report.heads} {fit} it; the last covers record {report.covered}.")
    else:
        click.echo("There is no signed head in it.")
    if report.unfinished:
        click.echo(
            f"{report.unfinished} bytes follow: a record that is being written now, or that a "
            "crash cut short and nobody was answered for."
        )
    for sentence in report.unknown:
        click.echo(f"Not known: {sentence}")
