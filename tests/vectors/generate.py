"""Makes the vectors of this folder, from docs/format.md and `cryptography`, without the project's
code: so what the project's code makes of them is a finding, not a repetition.

    python -m tests.vectors.generate            writes all files
    python -m tests.vectors.generate --check    fails if a file that holds no salt would change

Keys are SHA-256 of a label, so everything but the salts in envelope.json (which are random, and the
ciphertexts with them) comes out the same on each run. README.md describes the files.
"""

import json
import sys
from pathlib import Path
from typing import Final

from tests.vectors.making.context import context_file
from tests.vectors.making.delivery import delivery_file
from tests.vectors.making.envelope import envelope_file
from tests.vectors.making.records import audit_file, state_file
from tests.vectors.making.spec import Json
from tests.vectors.making.wrapped_key import wrapped_key_file

FOLDER: Final = Path(__file__).parent

#: The files that come out the same on each run.
FIXED: Final = {
    "context.json": context_file,
    "wrapped_key.json": wrapped_key_file,
    "delivery.json": delivery_file,
    "state.json": state_file,
    "audit.json": audit_file,
}


def text(content: Json) -> str:
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def stale() -> list[str]:
    """Names of the files without salts that are not what this program makes."""
    return [
        name
        for name, make in FIXED.items()
        if (FOLDER / name).read_text(encoding="ascii") != text(make())
    ]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        found = stale()
        print("\n".join(found) or "up to date")
        return 1 if found else 0
    for name, make in {**FIXED, "envelope.json": envelope_file}.items():
        (FOLDER / name).write_text(text(make()), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
