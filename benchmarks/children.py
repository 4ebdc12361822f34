"""Programs that a benchmark runs beside itself."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]

#: Asks a child one question and waits for its answer.
Ask = Callable[[Mapping[str, Any]], Any]


@contextmanager
def running(
    command: list[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Run a program for the length of the block, from when it says that it is ready."""
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environment
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if ready in line.lower():
                break
        else:
            sys.exit(f"{' '.join(command)} ended before it was ready")
        yield child
    finally:
        child.terminate()
        child.wait(timeout=30)


@contextmanager
def asked(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Ask]:
    """Run a module of the benchmarks that answers each line of JSON on its stdin with one."""
    child = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=environment,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    requests, answers = child.stdin, child.stdout

    def ask(question: Mapping[str, Any]) -> Any:
        requests.write(json.dumps(question) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            sys.exit(f"benchmarks.{module} ended without an answer")
        return json.loads(line)

    with child:
        try:
            yield ask
        finally:
            requests.close()


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """The other end of `asked`."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
