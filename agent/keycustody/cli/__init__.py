"""The `keycustody` command.

Rules that every command here keeps:

* Nothing but click and the standard library is imported until a command needs it: `--help` is
  fast, and the client's commands run where the agent's dependencies are not installed.
* A failure is one line on stderr, `keycustody: <sentence> [CODE]`, and an exit status of
  `keycustody.cli.failures`. A traceback is shown to nobody who did not ask for it with `--debug`.
* PINs are asked for at a terminal or come from where the settings say: never from an argument.
* Tables, colours and progress bars are for terminals. A pipe gets plain text.
"""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status."""
    # gRPC's core reads these once, when it is loaded. It would log beside our one sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Nor does a command go on in a forked child. gRPC prepares for one at each fork all the same,
    # also before an exec: threads that it then starts crash in one new worker of some.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        import click  # noqa: F401  # asked for here, to say in one sentence that it is missing
    except ModuleNotFoundError:
        sys.stderr.write("keycustody: The command needs its extra: pip install 'keycustody[cli]'\n")
        sys.exit(1)
    from keycustody.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
