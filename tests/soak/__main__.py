"""`make soak SECONDS=600`: soak an agent, and leave what happened in var/soak.

argv: seconds, and a seed for what troubles come in what order. The exit status is 1 if anything is
lost or unexplained.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.control import build
from tests.soak import report
from tests.soak.soak import soak


def main() -> int:
    """Soak, and report."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    told = Path("var/soak")
    told.mkdir(parents=True, exist_ok=True)
    # A socket's path is short, and a clone's may be long.
    with tempfile.TemporaryDirectory(prefix="soak", dir="/tmp") as name:
        folder = Path(name)
        try:
            outcome = soak(folder / "agent", build(folder), seconds, seed)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(folder / "agent" / "log", told / "agent.log")
    told.joinpath("soak.svg").write_text(report.plot(outcome))
    told.joinpath("report.md").write_text(report.text(outcome))
    told.joinpath("calls.jsonl").write_text(
        "".join(json.dumps(asdict(one)) + "\n" for one in outcome.seen)
    )
    sys.stdout.write(report.text(outcome) + "The plot is var/soak/soak.svg.\n")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
