"""The command's root: its options, its commands, and the one place where failures end."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

import keycustody
from keycustody.cli import failures
from keycustody.cli.agent import reload, serve, status
from keycustody.cli.audit import audit
from keycustody.cli.check import check
from keycustody.cli.envelopes import decrypt, encrypt, inspect
from keycustody.cli.explain import explain
from keycustody.cli.keys import keys
from keycustody.cli.rewrap import rewrap
from keycustody.cli.signing import sign, verify
from keycustody.cli.token import token
from keycustody.cli.usage import usage

_DEBUG = "--debug"


class _InOrder(click.Group):
    """Lists commands in the order in which somebody new needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done; 1 failed; 2 wrong usage; 3 data refused (signature, envelope, "
    "audit log); 4 try again later.",
)
@click.version_option(keycustody.__version__, prog_name="keycustody")
@click.option(_DEBUG, is_flag=True, expose_value=False, help="Show tracebacks of failures.")
def root() -> None:
    """Private keys stay in a PKCS#11 token; bulk encryption stays in your process.

    \b
    Set up a token and run the agent:
      keycustody token init --config hsm_config/softhsm.toml
      keycustody keys apply --config hsm_config/softhsm.toml
      keycustody serve      --config hsm_config/softhsm.toml

    \b
    Use it, elsewhere:
      export KEYCUSTODY_SOCKET=.../run/demo/agent.sock
      keycustody sign release build.tar -o build.tar.sig
      keycustody encrypt invoices big.csv -o big.csv.kc --context tenant=42
    """


_COMMANDS = (
    token,
    check,
    keys,
    serve,
    status,
    reload,
    explain,
    sign,
    verify,
    encrypt,
    decrypt,
    inspect,
    rewrap,
    audit,
)

for _command in _COMMANDS:
    root.add_command(_command)
keys.add_command(usage)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # An exception, so that half-written files are removed. What nohup ignores stays ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminated)
    try:
        # Not root.main(), which ends a broken pipe with a status of its own and prints on Ctrl-C.
        with root.make_context("keycustody", list(arguments)) as context:
            root.invoke(context)
        if sys.stdout is not None:  # `>&-` closes it
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the last resort: report() says what it was
        status = _status(error, debug=_DEBUG in arguments)
        _drop_stdout()
        return status
    return 0


def _status(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else failures.FAILED
    return failures.report(error, debug=debug)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _drop_stdout() -> None:
    """Keep the interpreter's last flush from complaining about a reader that went away."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
