"""What the lines of a contract have in common: how one is made, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from monai_tl.dataset.orientation import axes_and_flips
from monai_tl.records import Adaptation, Fingerprint, Plan, Triple

Status = Literal["equal", "adapted", "broken"]


class Judged(NamedTuple):
    """What became of a line, the reason in a sentence, and of a broken one what mends it."""

    status: Status
    reason: str
    advice: str = ""


def make_line(item: str, source: str, target: str, judged: Judged) -> Adaptation:
    """One line of the contract: what the source expects, what the target has, and how they go together."""
    return Adaptation(
        item=item, source=source, target=target, status=judged.status, reason=judged.reason, advice=judged.advice
    )


def in_mm(spacing: Sequence[float]) -> str:
    """E.g. ``1 x 1 x 2.5 mm``."""
    return " x ".join(f"{step:.3g}" for step in spacing) + " mm"


def in_voxels(sizes: Sequence[float]) -> str:
    """E.g. ``36 x 52 x 36 voxels``."""
    return " x ".join(f"{size:.0f}" for size in sizes) + " voxels"


def axes_of(orientation: str) -> list[int]:
    """For each axis of an orientation, the axis of a RAS+ array that it is."""
    return axes_and_flips("RAS", orientation)[0]


def extent_vox(found: Fingerprint, plan: Plan) -> Triple:
    """Median size of the target's cases on the plan's grid (after the crop, where there is one), voxels."""
    extent = found.extent_mm_median
    if plan.foreground == "none":
        i, j, k = (size * step for size, step in zip(found.shape_median, found.spacing_mm_median, strict=True))
        extent = i, j, k
    return on_grid(extent, plan)


def smallest_extent_vox(found: Fingerprint, plan: Plan) -> Triple | None:
    """As ``extent_vox``, of the smallest case along each axis; None where the fingerprint does not say it."""
    extent = found.image_mm_min if plan.foreground == "none" else found.extent_mm_min
    return None if extent is None else on_grid(extent, plan)


def on_grid(extent_mm: Triple, plan: Plan) -> Triple:
    """Lengths along R-L, A-P and S-I as voxels along the plan's axes."""
    i, j, k = (extent_mm[axis] / step for axis, step in zip(axes_of(plan.orientation), plan.spacing_mm, strict=True))
    return i, j, k
