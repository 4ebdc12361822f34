"""Documents that name a test as evidence name one that exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = ("controls.md", "threat-model.md")
NAMED = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")


@cache
def functions(path: Path) -> frozenset[str]:
    """The test functions of a module."""
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a text's tables, without headings."""
    lines = text.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line, following in zip(tables, [*tables[1:], ""], strict=True)
        if not line.startswith("| ---") and not following.startswith("| ---")
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_exists(page: str) -> None:
    text = (PROJECT / "docs" / page).read_text()
    named = NAMED.findall(text)
    assert len(named) > 20
    for test in named:
        path, _, function = test.partition("::")
        assert (PROJECT / path).is_file(), test
        assert not function or function in functions(PROJECT / path), test


def test_every_control_names_a_test() -> None:
    for row in rows((PROJECT / "docs" / "controls.md").read_text()):
        assert NAMED.search(row[-1]), row


def test_every_defence_names_a_test_and_what_is_not_defended_names_none() -> None:
    text = (PROJECT / "docs" / "threat-model.md").read_text()
    for tries, _, test in rows(text.partition("## Actor by actor")[2]):
        defended = not tries.startswith("**not defended:**")
        assert bool(NAMED.search(test)) is defended, tries
