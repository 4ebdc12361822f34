"""`encrypt`, `decrypt` and `inspect`: envelopes of docs/format.md, section 6."""

import json
import os
from pathlib import Path

import click

from keycustody.cli import files, options, progress
from keycustody.cli.text import facts

_AAD = click.option(
    "--associated-data",
    "associated_data",
    default="",
    metavar="TEXT",
    help="Bound to the data and not stored: decrypting needs the same text.",
)
_CONTEXT = click.option(
    "--context",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="One pair of the context; may be repeated. Not secret; decrypting must name the same.",
)
_OUTPUT = click.option(
    "-o", "--output", required=True, metavar="FILE", help="Where to write; - is a pipe."
)


@click.command()
@click.argument("name")
@click.argument("file")
@_OUTPUT
@_CONTEXT
@_AAD
@options.token_options
@options.socket_option()
def encrypt(
    name: str,
    file: str,
    output: str,
    pairs: tuple[str, ...],
    associated_data: str,
    delivery_keys: tuple[str, ...],
    known_tokens: Path | None,
    socket: Path | None,
) -> None:
    """Encrypt FILE under a session key of the wrap key NAME.

    The data stays in this process; only the session key comes from the agent. FILE and -o may be -,
    a pipe.

    \b
    Examples:
      keycustody encrypt invoices big.csv -o big.csv.kc --context tenant=42
      tar c src | keycustody encrypt invoices - -o src.tar.kc --context host=web1
    """
    context = options.context_of(pairs)
    source, target = files.source(file), files.destination(output)
    with (
        options.connect(socket, delivery_keys, known_tokens) as agent,
        agent.session(name, context=context) as session,
        progress.bar("encrypting") as bar,
    ):
        session.encrypt_file(
            source, target, associated_data=os.fsencode(associated_data), progress=bar
        )


@click.command()
@click.argument("file")
@_OUTPUT
@click.option("--key", metavar="NAME", help="The key that the envelope must name.")
@_CONTEXT
@click.option("--any", "accept_any", is_flag=True, help="Accept whatever the envelope says.")
@_AAD
@options.token_options
@options.socket_option()
def decrypt(
    file: str,
    output: str,
    key: str | None,
    pairs: tuple[str, ...],
    accept_any: bool,
    associated_data: str,
    delivery_keys: tuple[str, ...],
    known_tokens: Path | None,
    socket: Path | None,
) -> None:
    """Decrypt the envelope FILE.

    Say which key and context you expect: what an envelope says about itself is not believed. With
    --any, any key and context are accepted; with --key and --any, any context. A file that fails to
    decrypt leaves no output. A pipe may have carried authenticated data from the front by then: the
    exit status tells.

    \b
    Examples:
      keycustody decrypt big.csv.kc -o big.csv --key invoices --context tenant=42
      keycustody decrypt src.tar.kc -o - --any | tar x
    """
    if accept_any and pairs:
        raise click.UsageError("--any accepts every context: leave out --context.")
    if key is None and not accept_any:
        raise click.UsageError("Say what you expect: --key NAME --context KEY=VALUE, or --any.")
    context = options.context_of(pairs)
    source, target = files.source(file), files.destination(output, binary=False)
    from keycustody.client import ANY

    with (
        options.connect(socket, delivery_keys, known_tokens) as agent,
        progress.bar("decrypting") as bar,
    ):
        agent.decrypt_file(
            source,
            target,
            key=ANY if key is None else key,
            context=ANY if accept_any else context,
            associated_data=os.fsencode(associated_data),
            progress=bar,
        )


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: str, as_json: bool) -> None:
    """Show what the envelope FILE says about itself. Needs no agent.

    Nothing of it is proven: only decrypting shows whether it is true.

    \b
    Examples:
      keycustody inspect big.csv.kc
      keycustody inspect big.csv.kc --json | jq -r .context.tenant
    """
    from keycustody.formats import envelope

    header, length = envelope.parse(files.read(file, envelope.MAX_HEADER_BYTES))
    body = _body_bytes(file, length)
    if as_json:
        described = {
            "format": envelope.FORMAT,
            "suite": header.suite,
            "key": header.key,
            "version": header.version,
            "context": dict(header.context),
            "wrapped_key": header.wrapped_key.hex(),
            "header_bytes": length,
            "body_bytes": body,
        }
        click.echo(json.dumps(described, indent=2))
        return
    facts(
        [
            ("format", f"keycustody envelope {envelope.FORMAT}, suite {header.suite}"),
            ("key", f"{header.key}, version {header.version}"),
            *_context_lines(dict(header.context)),
            ("wrapped key", header.wrapped_key.hex()),
            ("header", f"{length} bytes"),
            ("body", "a pipe: not measured" if body is None else f"{body} bytes"),
        ]
    )


def _context_lines(context: dict[str, str]) -> list[tuple[str, str]]:
    pairs = [f"{key}={value}" for key, value in context.items()] or ["(empty)"]
    return [("context" if index == 0 else "", pair) for index, pair in enumerate(pairs)]


def _body_bytes(file: str, header: int) -> int | None:
    path = Path(file)
    return path.stat().st_size - header if file != files.PIPE and path.is_file() else None
