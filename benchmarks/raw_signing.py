"""python-pkcs11 alone, in one process: how fast the token itself signs, called from Python.

Run as `python -m benchmarks.raw_signing MODULE LABEL PIN_FILE KEY_LABEL`; for each line on stdin
with a number it signs that many digests and answers the seconds that it took.
"""

import os
import sys
import time
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass


def main(module: str, label: str, pin_file: str, key_label: str) -> None:
    """Serve requests from stdin until it ends."""
    token = pkcs11.lib(module).get_token(token_label=label)
    session = token.open(user_pin=Path(pin_file).read_text().strip())
    (key,) = session.get_objects(
        {Attribute.LABEL: key_label, Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    )
    digest = os.urandom(32)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            key.sign(digest, mechanism=Mechanism.ECDSA)
        sys.stdout.write(f"{time.perf_counter() - started}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
