"""A program to be killed: python kill_replace.py FOLDER replaces the slots of all files in it."""

import sys
from pathlib import Path

from keycustody.client import slots
from keycustody.client.slots import Change


def main(folder: str) -> None:
    seen = [slots.look(str(path)) for path in sorted(Path(folder).iterdir())]
    changes = [Change(one, one.header.with_slot(2, b"n" * 72)) for one in seen if one is not None]
    assert all(slots.replace(folder, changes))


if __name__ == "__main__":
    main(sys.argv[1])
