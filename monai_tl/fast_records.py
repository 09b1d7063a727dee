"""What fast mode does with a model, as validation cases allowed it."""

from __future__ import annotations

from typing import Final, Literal

from monai_tl.config import PrecisionName
from monai_tl.records import Record

FAST_FILE = "fast.json"
"""In a model's folder."""
TOLERANCE = 0.001
"""Of mean Dice, between fast and exact mode."""
MIN_CASES = 3
"""Fewer validation cases do not tell by how much a mean may be off."""
Windows = Literal["large", "patch", "exact"]
"""``large``: as memory allows, overlap a quarter of the patch. ``patch``: the patch, the same overlap. ``exact``: those
of exact mode."""
WINDOWS: tuple[Windows, ...] = ("large", "patch", "exact")
"""From those that differ most from exact mode's on."""
_WORDS: Final[dict[Windows, str]] = {
    "large": "larger windows",
    "patch": "less overlap",
    "exact": "the windows of exact mode",
}


class Trial(Record):
    """One way of passing the windows, against exact mode on the same cases.

    Attributes:
        windows, precision: What was tried.
        n_cases: Those that tell: with foreground, and with other windows than exact mode's unless these are tried.
        difference: Mean Dice less that of exact mode.
        standard_error: Of the difference, over cases.
        is_within: Whether the difference, and one standard error more, stay within ``TOLERANCE`` either way.
    """

    windows: Windows
    precision: PrecisionName
    n_cases: int
    difference: float
    standard_error: float
    is_within: bool


class FastRecord(Record):
    """``fast.json``: the cheapest way that stays within ``TOLERANCE`` of exact mode on validation cases.

    Attributes:
        windows: Which.
        precision: The number format; a device that multiplies no faster in it computes in float32.
        n_cases: Validation cases that it was tried on; 0 of a way that was not tried.
        is_within: Whether it stayed within ``TOLERANCE`` there; None of a way that was not tried. Where it is False no
            way did, and fast mode is exact mode.
        trials: In the order in which they were tried, the cheapest first; of a mean of models those of the models that
            decide its number format.
    """

    windows: Windows
    precision: PrecisionName
    n_cases: int = 0
    is_within: bool | None = None
    trials: tuple[Trial, ...] = ()

    def joined(self, other: FastRecord) -> FastRecord:
        """What both allow, for models whose mean is taken."""
        both = (self, other)
        precision = "float32" if any(one.precision == "float32" for one in both) else self.precision
        held = {one.is_within for one in both}
        return FastRecord(
            windows=max(self.windows, other.windows, key=WINDOWS.index),
            precision=precision,
            n_cases=min(self.n_cases, other.n_cases),
            is_within=False if False in held else None if None in held else True,
            trials=tuple(trial for one in both if one.precision == precision for trial in one.trials),
        )

    def describe(self) -> str:
        """What fast mode does, and by what that is known."""
        way = name_way(self.windows, self.precision)
        if self.is_within is False:
            return "fast mode is exact mode, whose Dice no other way kept"
        if self.is_within is None or not self.trials:
            return f"fast mode takes {way}, untried"
        last = self.trials[-1]
        return (
            f"fast mode takes {way} (Dice {last.difference:+.4f} ± {last.standard_error:.4f} of exact mode's on "
            f"{self.n_cases} validation cases)"
        )

    def why_float32(self) -> str:
        """Of a record that says so: was bfloat16 found wanting, or is its machine one that does not multiply in it."""
        if any(trial.precision != "float32" and not trial.is_within for trial in self.trials):
            return "bfloat16 did not keep exact mode's Dice on validation cases"
        return "bfloat16 was not tried on validation cases, since the machine of the training does not multiply in it"


def name_way(windows: Windows, precision: PrecisionName) -> str:
    """In words."""
    return f"{_WORDS[windows]}, {precision}"
