from __future__ import annotations

import numpy as np
import pytest
import torch
from balls import make_arrays, make_plan
from torch import nn

from monai_tl.dataset.patches import TrainingCase, find_foreground
from monai_tl.training.validation import foreground_dice, validation_dice


def test_dice_by_hand() -> None:
    reference = np.array([0, 1, 1, 1, 2, 0, 0])
    prediction = np.array([0, 1, 1, 0, 0, 0, 3])
    # class 1: 2*2/(3+2); class 2: missed; class 3: invented; class 4: in neither, so it is no score
    assert foreground_dice(reference, prediction, 5) == pytest.approx([0.8, 0.0, 0.0])
    assert foreground_dice(np.zeros(4, int), np.zeros(4, int), 3) == []


class _Threshold(nn.Module):
    """Calls a voxel foreground above 0.45, which is the reference of the balls but for noise."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.45))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.level - x, x - self.level], dim=1) * 100


def test_whole_cases_are_scored() -> None:
    cases = []
    for number in range(2):
        image, label = make_arrays(number)
        cases.append(TrainingCase(f"case-{number}", image, label, find_foreground(label)))
    expected = np.mean([foreground_dice(case.label, (case.image[0] > 0.45).astype(int), 2)[0] for case in cases])
    assert validation_dice(_Threshold().eval(), cases, make_plan((8, 8, 8)), 2) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.95


def test_no_case_is_no_score() -> None:
    assert validation_dice(_Threshold().eval(), [], make_plan(), 1) is None
