"""Fuzz, guided by coverage, each target for so many seconds: `make fuzz`.

python -m tests.fuzz SECONDS [TARGET...]

Begins with the seeds and with what earlier runs found worth keeping, in var/fuzz/TARGET. An input
that breaks something stays in var/fuzz as TARGET-crash-...; it belongs into tests/fuzz/seeds.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit(
        "keycustody: atheris is not installed for this Python; it has wheels for Python 3.11 to "
        "3.14 on Linux x86-64. make test replays the seeds without it."
    )

_FOUND = Path("var/fuzz")
#: More than any target needs, the parsers' tables and the fuzzer's own included.
_MEGABYTES = 1024
#: An input that takes longer hangs.
_HANG_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Run each target in a process of its own: libFuzzer ends the one that it runs in."""
    seconds, named = arguments[0], arguments[1:]
    from tests.fuzz.targets import TARGETS

    failed = []
    for name in named or TARGETS:
        sys.stdout.write(f"keycustody: fuzzing {name} for {seconds} s\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, seconds]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        sys.stdout.write(f"keycustody: {', '.join(failed)} broke; see {_FOUND}/\n")
    return bool(failed)


def fuzz(name: str, seconds: str) -> None:
    """Fuzz one target; does not return."""
    with atheris.instrument_imports(include=["keycustody"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS, seeds_of
    target = TARGETS[name]
    corpus = _FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds_of(name):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-max_len={target.longest}",
            f"-rss_limit_mb={_MEGABYTES}",
            f"-timeout={_HANG_SECONDS}",
            f"-artifact_prefix={_FOUND}/{name}-",
            "-verbosity=0",
            "-print_final_stats=1",
        ],
        target.run,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz(*sys.argv[2:4])
    else:
        sys.exit(main(sys.argv[1:]))
