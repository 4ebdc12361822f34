"""Every Python block of docs/client.md, in order, in one namespace."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


def run_blocks(page: Path) -> int:
    """Run a page's Python blocks; return how many there were."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)  # noqa: S102 - our own page
    return len(blocks)


def test_the_tour_runs(socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYCUSTODY_SOCKET", str(socket))
    assert run_blocks(PAGE) > 10
