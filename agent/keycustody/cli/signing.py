"""`sign` and `verify`: detached signatures of files."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from keycustody.cli import files, options
from keycustody.cli.text import printable
from keycustody.errors import FileUnusable, InvalidSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from keycustody.client.values import KeyInfo, PublicKey

#: More than any signature or PEM public key here is long.
_SMALL = 64 * 1024

_ALGORITHM = click.option(
    "--algorithm", metavar="NAME", help="One of the key's algorithms; without it, its first."
)
_RAW = click.option("--raw", is_flag=True, help="ECDSA as r || s (as in JWS), not DER.")
_VERSION = click.option(
    "--version", type=click.IntRange(min=1), metavar="N", help="The key version; else the newest."
)


@click.command()
@click.argument("name")
@click.argument("file")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write; - is a pipe.")
@_ALGORITHM
@_RAW
@_VERSION
@options.socket_option()
def sign(
    name: str,
    file: str,
    output: str,
    algorithm: str | None,
    raw: bool,
    version: int | None,
    socket: Path | None,
) -> None:
    """Sign FILE with the key NAME; the signature goes to its own file.

    Only the file's hash goes to the agent, except for Ed25519, which signs whole messages.

    \b
    Examples:
      keycustody sign release build.tar -o build.tar.sig
      keycustody keys show release --pem > release.pem
      openssl dgst -sha256 -verify release.pem -signature build.tar.sig build.tar
    """
    files.destination(output)
    with options.connect(socket) as agent:
        signature = agent.sign_file(
            name, files.source(file), algorithm=algorithm, raw=raw, version=version
        )
    files.write(output, signature)


@click.command()
@click.argument("arguments", nargs=-1, metavar="[NAME] FILE SIGNATURE")
@click.option(
    "--public-key", metavar="PEM", help="Verify with this public key: no agent and no NAME needed."
)
@_ALGORITHM
@_RAW
@click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="The key version; else any that is active or retired.",
)
@options.socket_option()
def verify(
    arguments: tuple[str, ...],
    public_key: str | None,
    algorithm: str | None,
    raw: bool,
    version: int | None,
    socket: Path | None,
) -> None:
    """Verify that SIGNATURE is the key NAME's over FILE.

    It is checked here, with the public key: the agent only tells that, and with --public-key is not
    asked at all. Without --version each version that is active or retired may have made it. Exit
    status 3 says that the signature does not verify.

    \b
    Examples:
      keycustody verify release build.tar build.tar.sig
      keycustody verify --public-key release.pem build.tar build.tar.sig
    """
    if len(arguments) != 3 and (public_key is None or len(arguments) != 2):
        raise click.UsageError("Give NAME FILE SIGNATURE, or --public-key PEM FILE SIGNATURE.")
    *names, file, signature = arguments
    if file == signature == files.PIPE:
        raise click.UsageError("Only one of FILE and SIGNATURE can be a pipe.")
    from keycustody.cli import verification

    if public_key is None:
        with options.connect(socket) as agent:
            described = agent.key(names[0])
        candidates: Sequence[PublicKeyTypes] = _public_keys(described, version)
        # The operator's default for this key, where it has one.
        algorithm = algorithm or next(iter(described.algorithms), None)
    else:
        candidates = [verification.load_public_key(files.read(public_key, _SMALL))]
    # The versions of a key have one algorithm.
    chosen = verification.choose(candidates[0], algorithm)
    claimed = files.read(signature, _SMALL)
    with ExitStack() as stack:
        signed = verification.digest(_opened(file, stack), chosen)
    try:
        verification.check_any(candidates, chosen, signed, claimed, raw)
    except InvalidSignature as error:
        raise InvalidSignature(f"{signature}: {error.message}") from error
    click.echo(f"{printable(file)}: the {chosen.name} signature is valid.")


def _public_keys(key: "KeyInfo", version: int | None) -> "list[PublicKey]":
    """Of that version; None: of each that may verify, which is each that is not revoked, newest
    first."""
    if version is not None or not key.versions:
        return [key.version(version).public_key()]
    return [entry.public_key() for entry in reversed(key.versions)]


def _opened(file: str, stack: ExitStack) -> BinaryIO:
    source = files.source(file)
    if not isinstance(source, Path):
        return source
    try:
        return stack.enter_context(source.open("rb"))
    except OSError as error:
        raise FileUnusable(f"{file}: cannot be read: {error.strerror}.") from error
