"""docs/architecture.md names every layer and every part of the domain, and nothing else."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "agent" / "keycustody"
TEXT = (PROJECT / "docs" / "architecture.md").read_text()
NAMED = set(re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*)`", TEXT))


def test_every_layer_has_its_row() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = {
        name for row in contracts["contracts"][0]["layers"] for name in re.findall(r"\w+", row)
    }
    table = TEXT.partition("## Layers")[2].partition("### Inside custody")[0]
    rows = " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == layers


def test_every_part_of_the_domain_is_named() -> None:
    parts = {
        f"custody/{path.stem}"
        for path in (PACKAGE / "custody").iterdir()
        if not path.name.startswith("_")
    }
    named = {name for name in NAMED if name.startswith("custody/")}
    assert named == parts, "give each a row in docs/architecture.md, Inside custody"


def test_what_is_named_is_there() -> None:
    for name in NAMED:
        top, _, rest = name.partition("/")
        if rest and (PACKAGE / top).is_dir():
            assert (PACKAGE / name).is_dir() or (PACKAGE / name).with_suffix(".py").is_file(), name
