"""A minute of everything at once: nothing is lost, and nothing is unexplained."""

import pytest

from tests.faults.control import build
from tests.soak import report
from tests.soak.soak import soak

SECONDS = 60


@pytest.mark.slow
def test_nothing_is_lost_in_a_minute(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("soak")
    outcome = soak(folder / "s", build(folder), SECONDS, seed=1)
    assert outcome.findings == [], report.text(outcome)
    # It was a soak: most troubles came, and most calls were answered.
    assert len({trouble.name for trouble in outcome.troubles}) >= 8
    assert outcome.codes["OK"] > 20 * SECONDS
    assert "<polyline" in report.plot(outcome)
