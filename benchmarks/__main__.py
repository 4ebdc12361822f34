"""Everything that is measured: `python -m benchmarks [--quick] [--only GROUP ...]`.

Without --quick it writes docs/performance.md and docs/performance/; with it, or with --only, the
same below var/bench/report.
"""

import argparse
import sys
import time

from benchmarks import agents, report
from benchmarks.groups import GROUPS
from benchmarks.results import Results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    arguments = parser.parse_args()
    results = Results()
    agents.provision()
    for name in arguments.only:
        started = time.monotonic()
        sys.stderr.write(f"{name} ...\n")
        GROUPS[name].measure(results, quick=arguments.quick)
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    whole = not arguments.quick and list(arguments.only) == list(GROUPS)
    report.write(results, report.DOCS if whole else agents.FOLDER / "report", quick=arguments.quick)


if __name__ == "__main__":
    main()
