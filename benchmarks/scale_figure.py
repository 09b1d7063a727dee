"""The curve of the benchmark of scale, as docs/scaling.md shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.scale_tables import By, cases_of

PICTURE = ROOT / "docs/images/scaling.svg"
_COLOURS = {
    "ingest": "#0072b2", "preprocess": "#009e73", "predict": "#d55e00", "evaluate": "#cc79a7", "export": "#555555",
}  # fmt: skip


def write_picture(found: By, path: Path = PICTURE) -> None:
    """Processor time a case and memory of the stage's process by the number of cases; nothing of fewer than three."""
    import matplotlib
    from matplotlib.figure import Figure

    counts = [count for count, steps in found.items() if all(step in steps for step in _COLOURS)]
    if len(counts) < 3:
        return
    style = {"svg.hashsalt": "scaling", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.0, 3.4))
        time, memory = figure.subplots(
            1, 2, gridspec_kw={"left": 0.07, "right": 0.91, "bottom": 0.15, "top": 0.88, "wspace": 0.42}
        )
        for axes, values in ((time, _milliseconds(found, counts)), (memory, _mebibytes(found, counts))):
            for step, ys in values.items():
                axes.plot(counts, ys, "-o", ms=4.0, lw=1.6, color=_COLOURS[step])
            axes.set_xscale("log")
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.minorticks_off()
            axes.set_xlabel("cases")
            axes.grid(axis="y", color="#dddddd", lw=0.7)
        time.set_yscale("log")
        time.set_title("Processor ms a case, start-up included")
        memory.set_ylim(bottom=0.0)
        memory.set_title("Memory of the stage's process, MiB")
        for axes, values in ((time, _milliseconds(found, counts)), (memory, _mebibytes(found, counts))):
            _name_lines(axes, {step: ys[-1] for step, ys in values.items()}, counts[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def _milliseconds(found: By, counts: list[int]) -> dict[str, list[float]]:
    return {
        step: [1000 * found[count][step]["processor"] / cases_of(step, count) for count in counts] for step in _COLOURS
    }


def _mebibytes(found: By, counts: list[int]) -> dict[str, list[float]]:
    return {step: [found[count][step]["peak"] for count in counts] for step in _COLOURS}


def _name_lines(axes: object, ends: Mapping[str, float], last: int) -> None:
    """Names at the right ends of the lines, moved apart where they would touch."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    height = axes.get_figure().get_size_inches()[1] * axes.get_position().height * 72.0  # type: ignore[union-attr]
    taken = float("-inf")
    for step, value in sorted(ends.items(), key=lambda item: item[1]):
        at = float(axes.transAxes.inverted().transform(axes.transData.transform((last, value)))[1]) * height
        taken = max(at, taken + 11.0)
        axes.annotate(
            step, (1.0, 0.0), xycoords="axes fraction", xytext=(4, taken), textcoords="offset points",
            color=_COLOURS[step], va="center", annotation_clip=False,
        )  # fmt: skip
