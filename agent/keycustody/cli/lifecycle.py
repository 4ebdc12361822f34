"""`keys plan`, `apply`, `rotate`, `retire`, `revoke`, `destroy`, `adopt`: what changes the token.

Each works without a running agent, and with one: `--config` takes the state folder, and if an agent
holds it, asks that agent at its operators' socket; `--socket` asks a running agent and nobody else.
An agent that follows other settings than the file that was given is not asked for anything.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from keycustody.cli import options
from keycustody.cli.text import printable
from keycustody.errors import InvalidRequest, KeyNotTrusted, StateLocked

if TYPE_CHECKING:
    from keycustody.client.operators import KeyChanges
    from keycustody.client.values import Status
    from keycustody.config import Settings
    from keycustody.custody.lifecycle import Change

Function = TypeVar("Function", bound=Callable[..., Any])

#: As Terraform has it: there are changes to make, or something is amiss.
_DIFFERS = 2
#: Generating RSA keys in hardware takes its time.
_TIMEOUT_SECONDS = 600.0


class _Step(Protocol):
    @property
    def action(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def done(self) -> bool: ...


class _Finding(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def text(self) -> str: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Report:
    """What both ways answer."""

    steps: Sequence[_Step]
    findings: Sequence[_Finding]


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """How the token is reached: through the settings, or a running agent's socket."""

    config: Path | None
    socket: Path | None
    dry_run: bool = False

    def take(
        self, offline: "Callable[[], Change]", online: "Callable[[KeyChanges], Any]"
    ) -> _Report:
        """Make the change here, or have the agent that holds the state folder make it."""
        if self.socket is not None or self.config is None:
            return self._ask(options.admin_socket(self.socket), online, None)
        settings = options.load_trusted(self.config)
        from keycustody import daemon

        try:
            report = daemon.change_keys(
                settings, offline(), dry_run=self.dry_run, prompt=options.pin_prompt()
            )
        except StateLocked:
            from keycustody.config import ADMIN

            socket = settings.socket_path(ADMIN)
            if not socket.exists():
                # Not an agent but a command holds it.
                raise
            return self._ask(socket, online, settings)
        return _Report(report.steps, report.findings)

    def _ask(
        self, socket: Path, online: "Callable[[KeyChanges], Any]", settings: "Settings | None"
    ) -> _Report:
        import keycustody

        with keycustody.connect(socket, timeout=_TIMEOUT_SECONDS) as agent:
            if settings is not None and not _follows(agent.status(), settings):
                raise InvalidRequest(
                    f"The running agent follows other settings than {self.config}: run "
                    "`keycustody reload`, or restart or stop the agent, and try again; "
                    f"--socket {socket} goes by the agent's own settings."
                )
            report = online(agent.key_changes)
        return _Report(report.steps, report.findings)


def _follows(status: "Status", settings: "Settings") -> bool:
    """Does the agent judge by these settings: by the same rules, and of the same token?"""
    from keycustody.custody.access.rules import rules_of

    token, wanted = status.token, settings.token
    return (
        status.rules == rules_of(settings).digest
        and token.profile == wanted.profile
        and wanted.label in (None, token.label)
        and wanted.serial in (None, token.serial)
    )


def _ways(function: Function) -> Function:
    """`--config` and `--socket`."""
    return options.config_option(required=False)(
        options.socket_option(options.ADMIN_VARIABLE)(function)
    )


_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_NAME = click.argument("name")
_VERSION = click.option(
    "--version", type=click.IntRange(min=1), required=True, metavar="N", help="The key version."
)


@click.command(short_help="Show what apply would do, and what is amiss.")
@_ways
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit with 2 if there is anything to do or anything amiss; 0 means neither.",
)
def plan(config: Path | None, socket: Path | None, as_json: bool, detailed_exitcode: bool) -> None:
    """Show what `keys apply` would do, and how the token differs from what it should be.

    Changes nothing. docs/lifecycle.md says what each kind of difference means.

    \b
    Examples:
      keycustody keys plan --config hsm_config/softhsm.toml
      keycustody keys plan --config hsm_config/softhsm.toml --detailed-exitcode --json
    """
    from_settings, from_agent = _apply(dry_run=True)
    report = _Way(config, socket, dry_run=True).take(from_settings, from_agent)
    if as_json:
        click.echo(json.dumps(_members(report), indent=2))
    else:
        _show(report, _nothing(report))
    if detailed_exitcode and (report.steps or report.findings):
        raise click.exceptions.Exit(_DIFFERS)


@click.command()
@_ways
@_DRY_RUN
def apply(config: Path | None, socket: Path | None, dry_run: bool) -> None:
    """Make the declared keys that the token does not have yet.

    Also finishes what was interrupted, and retires versions that were superseded. What is there is
    never replaced, and nothing is removed that somebody else made. May be interrupted at any point.

    \b
    Example:
      keycustody keys apply --config hsm_config/softhsm.toml
    """
    from_settings, from_agent = _apply(dry_run=dry_run)
    report = _Way(config, socket, dry_run).take(from_settings, from_agent)
    _show(report, _nothing(report))
    impostors = [finding.text for finding in report.findings if finding.kind == "impostor"]
    unusable = [text for text in impostors if not text.endswith("it is ignored.")]
    if unusable:
        raise KeyNotTrusted(f"{unusable[0]} Remove it with the token's own tools.")


@click.command(short_help="Make the next version of a key.")
@click.argument("name", required=False)
@click.option("--due", is_flag=True, help="Every key that is older than its rotation_days.")
@_ways
@_DRY_RUN
def rotate(
    name: str | None, due: bool, config: Path | None, socket: Path | None, dry_run: bool
) -> None:
    """Make the next version of the key NAME, or of every key that is due.

    New signatures and session keys use it after one scan interval (limits.scan_seconds), when every
    agent on the token knows it. Old versions go on until they are retired or revoked.

    \b
    Examples:
      keycustody keys rotate release --config hsm_config/softhsm.toml
      keycustody keys rotate --due --config hsm_config/softhsm.toml
    """
    if (name is None) is not due:
        raise click.UsageError("Name one key, or say --due.")
    wanted = name or ""
    report = _Way(config, socket, dry_run).take(
        lambda: _change("Rotate", wanted),
        lambda agent: agent.rotate(wanted, dry_run=dry_run),
    )
    _show(report, "Nothing to do: no key is due, or its newest version is about to serve.")


@click.command(short_help="Let a version verify, unwrap and decrypt only.")
@_NAME
@_VERSION
@_ways
@_DRY_RUN
def retire(
    name: str, version: int, config: Path | None, socket: Path | None, dry_run: bool
) -> None:
    """Let a version of the key NAME verify, unwrap and decrypt only.

    \b
    Example:
      keycustody keys retire release --version 1 --config hsm_config/softhsm.toml
    """
    report = _Way(config, socket, dry_run).take(
        lambda: _change("Retire", name, version),
        lambda agent: agent.retire(name, version, dry_run=dry_run),
    )
    _show(report, f"Nothing to do: version {version} is retired already.")


@click.command(short_help="Let a version do nothing any more.")
@_NAME
@_VERSION
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept on the token.")
@_ways
@_DRY_RUN
def revoke(
    name: str,
    version: int,
    reason: str,
    config: Path | None,
    socket: Path | None,
    dry_run: bool,
) -> None:
    """Let a version of the key NAME do nothing any more.

    At once in the agent that is asked, in every other agent on the token with its next scan;
    clients keep a session key until its lease ends. There is no way back.

    \b
    Example:
      keycustody keys revoke release --version 1 --reason "laptop lost" --config agent.toml
    """
    report = _Way(config, socket, dry_run).take(
        lambda: _change("Revoke", name, version, reason),
        lambda agent: agent.revoke(name, version, reason, dry_run=dry_run),
    )
    _show(report, f"Nothing to do: version {version} is revoked already.")


@click.command(short_help="Destroy a revoked version for good.")
@_NAME
@_VERSION
@click.option("--confirm", metavar="NAME", help="The key's name again; asked for without it.")
@_ways
@_DRY_RUN
def destroy(
    name: str,
    version: int,
    confirm: str | None,
    config: Path | None,
    socket: Path | None,
    dry_run: bool,
) -> None:
    """Destroy the objects of a revoked version of the key NAME, for good.

    It must have been revoked for keys.NAME.destroy_wait_days. Its records stay.

    \b
    Example:
      keycustody keys destroy release --version 1 --confirm release --config agent.toml
    """
    if confirm is None:
        confirm = name if dry_run else _asked(name)
    typed = confirm
    report = _Way(config, socket, dry_run).take(
        lambda: _change("Destroy", name, version, typed),
        lambda agent: agent.destroy(name, version, typed, dry_run=dry_run),
    )
    _show(report, f"Nothing to do: version {version} is destroyed already.")


def _asked(name: str) -> str:
    question = f"What is destroyed cannot be had back. Type the name of the key ({name})"
    try:
        return str(click.prompt(question, err=True))
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.UsageError(f"Nobody answers; confirm it by --confirm {name}.") from None


@click.command(short_help="Take a key that was on the token before.")
@_NAME
@click.option("--id", "id_", required=True, metavar="HEX", help="The key's CKA_ID.")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="Else the next one.")
@_ways
@_DRY_RUN
def adopt(
    name: str,
    id_: str,
    version: int | None,
    config: Path | None,
    socket: Path | None,
    dry_run: bool,
) -> None:
    """Take a key that was on the token before, under the declared name NAME.

    It stays as it is. What about it is weaker than in keys that keycustody makes is recorded,
    shown, and accepted exactly so. Not for wrap keys.

    \b
    Example:
      keycustody keys adopt release --id 0a1b2c --config agent.toml
    """
    try:
        wanted = bytes.fromhex(id_)
    except ValueError:
        raise click.BadParameter("a CKA_ID is an even number of hex digits") from None
    report = _Way(config, socket, dry_run).take(
        lambda: _change("Adopt", name, wanted, version or 0),
        lambda agent: agent.adopt(name, wanted, version or 0, dry_run=dry_run),
    )
    _show(report, "Nothing to do: the key has that name already.")


COMMANDS = (plan, apply, rotate, retire, revoke, destroy, adopt)


def _apply(*, dry_run: bool) -> "tuple[Callable[[], Change], Callable[[KeyChanges], Any]]":
    return lambda: _change("Apply"), lambda agent: agent.apply(dry_run=dry_run)


def _change(kind: str, *arguments: object) -> "Change":
    """The change of that name; needs the agent's extras."""
    from keycustody.custody import lifecycle

    made: Change = getattr(lifecycle, kind)(*arguments)
    return made


def _nothing(report: _Report) -> str:
    if report.findings:
        return "Nothing that `keys apply` would do."
    return "Nothing to do: the token has every declared key."


def _show(report: _Report, nothing: str) -> None:
    for step in report.steps:
        click.echo(f"{'done' if step.done else 'to do'}: {printable(step.text)}")
    if not report.steps:
        click.echo(nothing)
    for finding in report.findings:
        click.echo(f"{finding.kind}: {printable(finding.text)}")


def _members(report: _Report) -> dict[str, Any]:
    return {
        "steps": [
            {
                "action": step.action,
                "key": step.key,
                "version": step.version,
                "text": step.text,
                "done": step.done,
            }
            for step in report.steps
        ],
        "findings": [
            {
                "kind": finding.kind,
                "key": finding.key,
                "version": finding.version,
                "text": finding.text,
            }
            for finding in report.findings
        ],
    }
