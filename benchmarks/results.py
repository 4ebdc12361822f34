"""What a run found: figures with their spread, ratios with their targets, curves, who was absent.

A ratio is the median of the ratios of its rounds: what is compared was measured within the same
round, seconds apart, so that a machine that slows down slows both.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Named pieces of work; each returns its figure for one round.
Works = Mapping[str, Callable[[], float]]


@dataclass(frozen=True)
class Figure:
    """Median, quartiles and number of rounds."""

    unit: str
    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """One figure over another; `target` is what the project asks of it, if it asks."""

    median: float
    low: float
    high: float
    target: float | None = None
    #: Whether more is better.
    up: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.target is None:
            return None
        return self.median >= self.target if self.up else self.median <= self.target


@dataclass(frozen=True)
class Curve:
    """How one figure grows with one size."""

    x: str
    y: str
    points: dict[str, list[tuple[float, float]]]


@dataclass
class Results:
    """All of a run. Names are `group: what`."""

    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    #: Peers that could not be measured, and why.
    absent: dict[str, str] = field(default_factory=dict)

    def figure(self, name: str, unit: str, values: Sequence[float]) -> None:
        """Take a figure's rounds."""
        self.figures[name] = Figure(unit, *_spread(values), len(values))

    def ratio(
        self,
        name: str,
        over: Sequence[float],
        under: Sequence[float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Take the rounds of two figures, and what is asked of their ratio."""
        values = [a / b for a, b in zip(over, under, strict=True)]
        target = at_least if at_most is None else at_most
        self.ratios[name] = Ratio(*_spread(values), target, up=at_most is None)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries."""
        found = asdict(self)
        for name, ratio in self.ratios.items():
            found["ratios"][name]["met"] = ratio.met
        return found


def interleaved(works: Works, rounds: int) -> dict[str, list[float]]:
    """Each work once a round, all of them in each round, in an order that moves on by one."""
    names = list(works)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            found[name].append(works[name]())
    return found


def added(*figures: Iterable[float]) -> list[float]:
    """Round by round, their sum."""
    return [sum(values) for values in zip(*figures, strict=True)]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), low, high
