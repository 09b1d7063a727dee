"""The curve of the benchmark of scale, as docs/scaling.md shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT
from benchmarks.scale_tables import By, cases_of

_TICKS_MS = (5, 10, 20, 50, 100)
PICTURE = ROOT / "docs/images/scaling.svg"
_COLOURS = {
    "ingest": "#0072b2", "preprocess": "#009e73", "predict": "#d55e00", "evaluate": "#cc79a7", "export": "#555555",
}  # fmt: skip


def write_picture(found: By, path: Path = PICTURE) -> None:
    """Processor time a case and memory of the stage's process by the number of cases; nothing of fewer than three."""
    import matplotlib
    from matplotlib.figure import Figure

    lines = {step: [count for count, steps in found.items() if step in steps] for step in _COLOURS}
    if min(map(len, lines.values())) < 2 or max(map(len, lines.values())) < 3:
        return
    style = {"svg.hashsalt": "scaling", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.0, 3.4))
        time, memory = figure.subplots(
            1, 2, gridspec_kw={"left": 0.07, "right": 0.91, "bottom": 0.15, "top": 0.88, "wspace": 0.42}
        )
        for axes, number in ((time, _milliseconds), (memory, _mebibytes)):
            ends = {}
            for step, counts in lines.items():
                ys = [number(found, step, count) for count in counts]
                axes.plot(counts, ys, "-o", ms=4.0, lw=1.6, color=_COLOURS[step])
                ends[step] = (counts[-1], ys[-1])
            axes.set_xscale("log")
            axes.set_xticks(list(found), [f"{count:,}" for count in found])
            axes.set_xlabel("cases")
            axes.grid(axis="y", color="#dddddd", lw=0.7)
            if axes is time:
                axes.set_yscale("log")
                axes.set_yticks(_TICKS_MS, [f"{tick:g}" for tick in _TICKS_MS])
            else:
                axes.set_ylim(bottom=0.0)
            axes.minorticks_off()
            _name_lines(axes, ends)
        time.set_title("Processor ms a case, start-up included")
        memory.set_title("Memory of the stage's process, MiB")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def _milliseconds(found: By, step: str, count: int) -> float:
    return 1000 * found[count][step]["processor"] / cases_of(step, count)


def _mebibytes(found: By, step: str, count: int) -> float:
    return found[count][step]["peak"]


def _name_lines(axes: Any, ends: Mapping[str, tuple[int, float]]) -> None:
    """Names at the right ends of the lines, moved apart where they would touch."""
    height = axes.get_figure().get_size_inches()[1] * axes.get_position().height * 72.0
    taken = float("-inf")
    for step, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        at = float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]) * height
        taken = max(at, taken + 11.0)
        axes.annotate(
            step, (1.0, 0.0), xycoords="axes fraction", xytext=(4, taken), textcoords="offset points",
            color=_COLOURS[step], va="center", annotation_clip=False,
        )  # fmt: skip
