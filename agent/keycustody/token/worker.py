"""A worker: `python -m keycustody.token.worker FD LEDGER_FD`, one process that uses the token.

One thread and one request at a time, answered in order: PKCS#11 modules are not trusted with more.
It ends when the pipe does. It prints nothing; a module may print to stderr, which is the agent's.
"""

import sys

from keycustody.token.api import AnyRequest
from keycustody.token.child import harden, serve


def main() -> None:
    """Serve the pipe whose descriptors are the arguments; see `keycustody.token.child.serve`."""
    harden()
    # Not before: loading code is the first chance for something to go wrong.
    from keycustody.token.hsm import Hsm
    from keycustody.token.hsm.failures import code, unless_answered
    from keycustody.token.hsm.transient import made

    sys.excepthook, sys.unraisablehook = unless_answered, lambda _unraisable: None
    hsm = Hsm()
    fd, ledger_fd = map(int, sys.argv[1:])
    serve(fd, ledger_fd, AnyRequest, hsm.perform, code, hsm.remedy, made)


if __name__ == "__main__":
    main()
