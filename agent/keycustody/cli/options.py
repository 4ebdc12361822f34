"""Options and arguments that several commands share, and what is made of them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keycustody.errors import AgentUnreachable, InvalidContext

if TYPE_CHECKING:
    from keycustody.client import Agent
    from keycustody.config import Settings

SOCKET_VARIABLE = "KEYCUSTODY_SOCKET"
ADMIN_VARIABLE = "KEYCUSTODY_ADMIN_SOCKET"
#: The operators' principal and the sockets' file name, as in `keycustody.config`, which a client
#: without the agent's extras cannot import.
_ADMIN_SOCKET = Path("admin") / "agent.sock"

Function = TypeVar("Function", bound=Callable[..., Any])


def config_option(*, required: bool = True) -> Callable[[Function], Function]:
    """`--config FILE`, as a `Path`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        required=required,
        envvar="KEYCUSTODY_CONFIG",
        show_envvar=True,
        metavar="FILE",
        help="The agent's settings.",
    )


def socket_option(variable: str = SOCKET_VARIABLE) -> Callable[[Function], Function]:
    """`--socket PATH`, as a `Path` or None; HOST:PORT is one, too."""
    where, tls = "PATH", ""
    if variable == SOCKET_VARIABLE:
        where, tls = "PATH|HOST:PORT", " HOST:PORT needs KEYCUSTODY_TLS_* (docs/identity.md)."
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar=where,
        help=f"The agent's socket.{tls}  [env var: {variable}]",
    )


def token_options(function: Function) -> Function:
    """`--delivery-key HEX`, repeated, and `--known-tokens FILE`: which token may deliver."""
    for option in (
        click.option(
            "--known-tokens",
            type=click.Path(path_type=Path),
            envvar="KEYCUSTODY_KNOWN_TOKENS",
            show_envvar=True,
            metavar="FILE",
            help="Remember the token's delivery key there at its first use; refuse others after.",
        ),
        click.option(
            "--delivery-key",
            "delivery_keys",
            multiple=True,
            envvar="KEYCUSTODY_DELIVERY_KEY",
            show_envvar=True,
            metavar="SHA256",
            help="The token's delivery key, as `keycustody status` shows it; may be repeated. "
            "Session keys of another token are refused.",
        ),
    ):
        function = option(function)
    return function


def load_settings(path: Path) -> "Settings":
    """The settings of an agent; needs the agent's extras."""
    from keycustody.config import load

    return load(path)


def load_trusted(path: Path) -> "Settings":
    """The settings of an agent, for what is about to use its token. Raises `InsecurePermissions` if
    others may change them, read the PIN, or replace the module."""
    from keycustody.check.permissions import require

    settings = load_settings(path)
    require(path, settings)
    return settings


def pin_prompt() -> Callable[[str], str] | None:
    """How to ask for a PIN; None where nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: str(click.prompt(question, hide_input=True, err=True))


def connect(
    socket: Path | None, delivery_keys: Sequence[str] = (), known_tokens: Path | None = None
) -> "Agent":
    """The agent at that socket, at the environment's, or at the default path."""
    import keycustody

    named = str(socket) if socket is not None else None  # a path or HOST:PORT
    if delivery_keys:
        # What is said wins over what is remembered.
        return keycustody.connect(named, delivery_key=delivery_keys)
    remembered = keycustody.Remembered(known_tokens) if known_tokens else None
    return keycustody.connect(named, delivery_key=remembered)


def admin_socket(socket: Path | None) -> Path:
    """The operators' socket: as given, from the environment, or beside the client's."""
    from keycustody.client.reach import host_and_port, socket_path

    if socket is not None:
        return socket
    if admin := os.environ.get(ADMIN_VARIABLE):
        return Path(admin)
    if host_and_port(None) is not None:
        raise AgentUnreachable(
            f"Operators' commands go to the operators' own socket: name it by --socket or "
            f"{ADMIN_VARIABLE}; ${SOCKET_VARIABLE} is an address for clients."
        )
    return Path(socket_path(None)).parent.parent / _ADMIN_SOCKET


def context_of(pairs: Sequence[str]) -> dict[str, str]:
    """The context of `k=v` arguments. Raises `InvalidContext`."""
    context: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidContext(f"A context pair is KEY=VALUE, and {pair!r} has no '='.")
        if key in context:
            raise InvalidContext(f"The context names {key!r} twice.")
        context[key] = value
    return context
