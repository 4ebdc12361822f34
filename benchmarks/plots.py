"""One curve as SVG, readable on a light and on a dark page."""

from pathlib import Path

from benchmarks.results import Curve

#: Between black and white, so that both pages show it.
_GREY = "#808080"
_COLOURS = ("#2f81f7", "#db6d28", "#2da44e", "#a371f7")


def plot(curve: Curve, path: Path) -> None:
    """Write one plot; logarithmic where the range is large."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "keycustody",
        "svg.fonttype": "none",
        "text.color": _GREY,
        "axes.labelcolor": _GREY,
        "axes.edgecolor": _GREY,
        "xtick.color": _GREY,
        "ytick.color": _GREY,
        "font.family": "sans-serif",
    }
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.4))
    for (name, points), colour in zip(curve.points.items(), _COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=colour)
    xs = [x for points in curve.points.values() for x, _ in points]
    ys = [y for points in curve.points.values() for _, y in points]
    if max(xs) > 50 * max(min(xs), 1):
        axes.set_xscale("log")
    if min(ys) > 0 and max(ys) > 20 * min(ys):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(curve.y)
    axes.grid(visible=True, color=_GREY, alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)
