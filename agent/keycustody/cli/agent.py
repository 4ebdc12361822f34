"""`serve`, `status` and `reload`: run the agent, ask how it is, have it read its settings again."""

import dataclasses
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keycustody.cli import options
from keycustody.cli.text import age, facts, table

if TYPE_CHECKING:
    from keycustody.client.values import AuditStatus, KeyStatus, Status, VersionStatus

#: Has gRPC's server read its sockets in the thread that hands calls to our loop, and not in three
#: others first (docs/adr/0030); and the newest gRPC that is known to have the switch.
SWITCHES = "-event_engine_listener"
_SWITCHED = (1, 85)


@click.command()
@options.config_option()
def serve(config: Path) -> None:
    """Run the agent in the foreground until SIGTERM or Ctrl-C. SIGHUP has it reload its settings.

    Prints, for each principal, what a client exports to reach its socket, and then a line that says
    that it is ready.

    \b
    Example:
      keycustody serve --config hsm_config/softhsm.toml
    """
    read = partial(options.load_trusted, config)
    _set_switches()
    from keycustody import daemon

    def ready(sockets: Sequence[Path]) -> None:
        for socket in sockets:
            principal = socket.parent.name
            name = options.ADMIN_VARIABLE if principal == "admin" else options.SOCKET_VARIABLE
            click.echo(f"export {name}={shlex.quote(str(socket))}  # {principal}")
        click.echo("keycustody is ready; Ctrl-C or SIGTERM stops it.")

    daemon.serve(read, prompt=options.pin_prompt(), on_ready=ready)


def _set_switches() -> None:
    """Before gRPC is loaded, which reads them then; it would complain of one that it has lost."""
    from importlib.metadata import version

    if tuple(map(int, version("grpcio").split(".")[:2])) <= _SWITCHED:
        os.environ.setdefault("GRPC_EXPERIMENTS", SWITCHES)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.socket_option(options.ADMIN_VARIABLE)
def status(as_json: bool, socket: Path | None) -> None:
    """Show how the agent, its token and its keys are. For operators.

    Asks the operators' own socket: --socket, or $KEYCUSTODY_ADMIN_SOCKET, or the one beside
    $KEYCUSTODY_SOCKET.

    \b
    Examples:
      keycustody status
      keycustody status --json | jq .token.workers_ready
    """
    with options.connect(options.admin_socket(socket)) as agent:
        answer = agent.status()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(answer), indent=2))
    else:
        _describe(answer)


@click.command(short_help="Have the agent read its settings again.")
@options.socket_option(options.ADMIN_VARIABLE)
def reload(socket: Path | None) -> None:
    """Have the agent read its settings again, and follow them at once. For operators.

    If the file has a finding, nothing changes and the command fails with it. SIGHUP does the same;
    docs/policy.md says which settings wait for a restart.

    \b
    Example:
      keycustody reload
    """
    with options.connect(options.admin_socket(socket)) as agent:
        answer = agent.reload()
    click.echo(f"The agent follows its settings; its rules are {answer.rules}.")
    for name in answer.waiting:
        click.echo(f"{name} waits for a restart.")


def _signed(audit: "AuditStatus") -> str:
    if not audit.verifier_key:
        return "none: nothing on the token can sign it"
    count, since = audit.unsigned_records, f"since {audit.unsigned_seconds:.0f} s"
    waiting = f"1 record waits {since}" if count == 1 else f"{count} records wait {since}"
    if not audit.covered:
        return f"none yet; {waiting}"
    of = f"of record {audit.covered}, {audit.head_age_seconds:.0f} s ago"
    return f"{of}; {waiting if audit.unsigned_records else 'no record waits'}"


def _describe(answer: "Status") -> None:
    token, audit = answer.token, answer.audit
    facts(
        [
            ("agent", f"keycustody {answer.agent_version}, up {answer.uptime_seconds} s"),
            ("token", f"{token.label} (serial {token.serial}, {token.model})"),
            ("profile", f"{token.profile}, session keys delivered {token.delivery}"),
            ("delivery key", token.delivery_key or "(none)"),
            (
                "workers",
                f"{token.workers_ready} of {token.workers_wanted} ready, {token.restarts} restarts",
            ),
            ("last good scan", f"{token.scan_age_seconds:.0f} s ago"),
            ("audit", f"{audit.sequence} records, head {audit.head}"),
            ("signed head", _signed(audit)),
            ("rules", answer.rules),
            *(("adopted", weaker) for weaker in _adopted(answer.keys)),
            *(("finding", finding) for finding in answer.findings),
        ]
    )
    click.echo()
    table(
        ("KEY", "PURPOSE", "ALGORITHM", "OWNER", "ROTATE BY", "STATE", "VERSIONS"),
        [
            (
                key.name,
                key.purpose,
                key.algorithm + (f" ({key.algorithm_status})" if key.algorithm_status else ""),
                key.owner or "-",
                key.rotate_by[:10] or "-",
                key.state,
                ", ".join(_version(version, key.unhealthy) for version in key.details) or "none",
            )
            for key in answer.keys
        ],
    )


def _version(version: "VersionStatus", unhealthy: Sequence[int]) -> str:
    said = [version.state, age(version.created)]
    if version.waiting:
        said.append("not yet the current one")
    if version.version in unhealthy:
        said.append("failed its self-test")
    return f"{version.version} ({', '.join(filter(None, said))})"


def _adopted(keys: "Iterable[KeyStatus]") -> Iterator[str]:
    for key in keys:
        for version in key.details:
            if version.weaker:
                weaker = ", ".join(version.weaker)
                yield f"{key.name}.v{version.version} is weaker than keys made here: {weaker}"
