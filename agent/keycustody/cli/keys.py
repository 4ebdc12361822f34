"""`keys`: apply what the settings declare, and look at what there is."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keycustody.algorithms import KEYS
from keycustody.cli import files, lifecycle, options
from keycustody.cli.text import age, facts, table
from keycustody.errors import AlgorithmMismatch, KeyPurpose

if TYPE_CHECKING:
    from keycustody.client.values import KeyInfo, KeyVersion, PublicKey

_NAME = click.argument("name")


@click.group(short_help="Make, change, list and show keys.")
def keys() -> None:
    """Declared keys: make them, change them, list them, show their public halves.

    \b
    Examples:
      keycustody keys plan --config hsm_config/softhsm.toml
      keycustody keys apply --config hsm_config/softhsm.toml
      keycustody keys rotate release --config hsm_config/softhsm.toml
      keycustody keys list
      keycustody keys show release --pem
      keycustody keys csr release --subject CN=release.example
    """


for _command in lifecycle.COMMANDS:
    keys.add_command(_command)


@keys.command(name="list")
@options.socket_option()
def list_keys(socket: Path | None) -> None:
    """List the keys that this caller may see.

    \b
    Example:
      keycustody keys list
    """
    with options.connect(socket) as agent:
        found = agent.keys()
    table(
        ("NAME", "PURPOSE", "ALGORITHM", "VERSIONS"),
        [
            (
                key.name,
                key.purpose,
                key.algorithm,
                ", ".join(f"{v.version} ({v.state})" for v in key.versions) or "none",
            )
            for key in found
        ],
    )


@keys.command()
@_NAME
@click.option("--pem", is_flag=True, help="Print the public key as a SubjectPublicKeyInfo in PEM.")
@click.option("--jwk", is_flag=True, help="Print the public key as a JWK.")
@click.option(
    "--version", type=click.IntRange(min=1), metavar="N", help="The key version; else the newest."
)
@options.socket_option()
def show(name: str, pem: bool, jwk: bool, version: int | None, socket: Path | None) -> None:
    """Show the key NAME, or its public half alone.

    \b
    Examples:
      keycustody keys show release
      keycustody keys show release --pem > release.pem
      keycustody keys show tokens --jwk
    """
    if pem and jwk:
        raise click.UsageError("--pem and --jwk: choose one.")
    with options.connect(socket) as agent:
        key = agent.key(name)
    if pem:
        click.echo(_pem(key.version(version).public_key()), nl=False)
    elif jwk:
        from keycustody.cli import jwk as jwks

        members = jwks.of(key.version(version).public_key(), key.purpose)
        click.echo(json.dumps(members, indent=2))
    else:
        _describe(key, None if version is None else key.version(version))


@keys.command(short_help="Make a certificate signing request.")
@_NAME
@click.option("--subject", required=True, metavar="DN", help="RFC 4514, as in CN=a.example,O=Org.")
@click.option("--dns", multiple=True, metavar="NAME", help="A DNS name; may be repeated.")
@click.option(
    "--algorithm", metavar="NAME", help="One of the key's; for RSA, else its first PKCS1."
)
@click.option(
    "-o", "--output", default=files.PIPE, metavar="FILE", help="Where to write; else the output."
)
@options.socket_option()
def csr(
    name: str,
    subject: str,
    dns: tuple[str, ...],
    algorithm: str | None,
    output: str,
    socket: Path | None,
) -> None:
    """Make a certificate signing request (PKCS#10) for the sign key NAME.

    \b
    Examples:
      keycustody keys csr release --subject CN=release.example -o release.csr
      keycustody keys csr archive --subject "CN=a.example,O=Example" --dns a.example
      openssl req -in release.csr -verify -noout
    """
    from keycustody.cli import requests

    with options.connect(socket) as agent:
        key = agent.key(name)
        if key.purpose != "sign":
            raise KeyPurpose(f"Key {name!r} is for {key.purpose}; only sign keys make requests.")
        if algorithm is not None and algorithm not in key.algorithms:
            known = ", ".join(key.algorithms)
            raise AlgorithmMismatch(f"{algorithm} is not for key {name!r}; name one of {known}.")
        pem = requests.build(
            agent.private_key(name), algorithm or requests.default(key.algorithms), subject, dns
        )
    files.write(output, pem, binary=False)


def _describe(key: "KeyInfo", only: "KeyVersion | None") -> None:
    known = KEYS.get(key.algorithm)
    facts(
        [
            ("name", key.name),
            ("purpose", key.purpose),
            ("algorithm", f"{key.algorithm} ({known.status})" if known else key.algorithm),
            ("requests may name", ", ".join(key.algorithms) or "(nothing to choose)"),
            ("prehashed input", "accepted" if key.prehashed else "refused"),
            ("current version", str(key.current or "(none)")),
        ]
    )
    click.echo()
    table(
        ("VERSION", "STATE", "CREATED", "AGE", "PUBLIC KEY SHA-256"),
        [
            (
                str(entry.version),
                entry.state,
                entry.created,
                age(entry.created),
                _fingerprint(entry.public_key_der),
            )
            for entry in (key.versions if only is None else (only,))
        ],
    )


def _fingerprint(public_key_der: bytes) -> str:
    return hashlib.sha256(public_key_der).hexdigest() if public_key_der else "(none: wrap)"


def _pem(public: "PublicKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
