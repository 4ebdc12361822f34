"""What a failure looks like: one line on stderr, and an exit status.

| status | meaning |
| --- | --- |
| 1 | it failed; the code in brackets says why |
| 2 | the command line itself is wrong |
| 3 | the data is not what it must be: a signature, envelope or audit log was refused |
| 4 | the same command may succeed later, without anybody changing anything |
| 130, 141, 143 | interrupted, the reader of the output went away, terminated |

A script that only asks whether it worked needs none but 0.
"""

import sys
import traceback

import click

from keycustody import errors
from keycustody.cli.text import printable
from keycustody.errors import KeycustodyError

FAILED = 1
USAGE = 2
REFUSED = 3
TRY_AGAIN = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

_REFUSED = (
    errors.InvalidSignature,
    errors.DecryptionFailed,
    errors.WrappedKeyRejected,
    errors.MalformedEnvelope,
    errors.UnexpectedKey,
    errors.UnexpectedContext,
    errors.DeliveryRejected,
    errors.TokenNotTrusted,
    errors.AuditChainBroken,
)

#: What the base distribution needs; a client without them is not installed at all.
_BASE = frozenset({"cryptography", "grpc", "google"})


def report(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what went wrong, and return the exit status."""
    if debug:
        traceback.print_exception(error)
    if _reader_gone(error):
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(error, KeycustodyError):
        return _keycustody(error)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, ModuleNotFoundError) and not _ours(error.name):
        return _missing(error.name or "")
    # Only the type is told: the text of an unforeseen exception may hold anything.
    _say(
        f"Something failed that should not have: {type(error).__name__}. `keycustody --debug ...` "
        "shows where; please report it to the project's issue tracker.",
        errors.InternalError.code,
    )
    return FAILED


def _keycustody(error: KeycustodyError) -> int:
    # Settings report every finding at once; each is a line of its own.
    settings = isinstance(error, errors.ConfigInvalid)
    for line in error.message.splitlines() if settings else [error.message]:
        _say(line, error.code, error.request_id)
    if isinstance(error, _REFUSED):
        return REFUSED
    # A budget is nothing to try again at once, but it says itself when it will do.
    later = error.retryable or error.retry_after is not None
    return TRY_AGAIN if later else FAILED


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" See '{context.command_path} --help'." if context else ""
    sentence = " ".join(error.format_message().split())
    _say(sentence.rstrip(".") + "." + hint, errors.InvalidRequest.code)
    return USAGE


def _missing(module: str) -> int:
    root = module.partition(".")[0]
    if root in _BASE:
        reason, extra = "keycustody is not completely installed", "keycustody"
    elif root in ("click", "rich"):
        reason, extra = "The command needs its extra", "keycustody[cli]"
    else:
        reason, extra = "This command needs the agent's extra", "keycustody[agent]"
    sys.stderr.write(f"keycustody: {reason} ({root} is missing): pip install '{extra}'\n")
    return FAILED


def _say(sentence: str, code: str, request_id: str | None = None) -> None:
    request = f" (request {printable(request_id)})" if request_id else ""
    sys.stderr.write(f"keycustody: {printable(sentence)} [{code}]{request}\n")


def _ours(module: str | None) -> bool:
    return (module or "keycustody").partition(".")[0] == "keycustody"


def _reader_gone(error: BaseException) -> bool:
    """Is it the output's pipe that broke? A worker's or a socket's is no reason to be quiet."""
    if isinstance(error, errors.FileUnusable):
        return isinstance(error.__cause__, BrokenPipeError)
    return isinstance(error, BrokenPipeError)
