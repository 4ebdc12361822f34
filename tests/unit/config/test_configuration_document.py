from pathlib import Path

import pytest

from tests.unit.config.configuration_document import fields, render

_PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_what_the_code_says() -> None:
    written = _PAGE.read_text()
    assert written == render(), (
        "run: python -m tests.unit.config.configuration_document > docs/configuration.md"
    )


@pytest.mark.parametrize("field", [pytest.param(field, id=name) for name, field in fields()])
def test_every_setting_says_what_it_is_for(field: object) -> None:
    assert getattr(field, "description", None)
