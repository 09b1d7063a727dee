from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_tl.training.losses import SegmentationLoss


def _by_hand(logits: np.ndarray, label: np.ndarray) -> float:
    """Dice of each sample and foreground class, and cross-entropy of each voxel, written out."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    dice = []
    for sample in range(len(label)):
        for value in range(1, logits.shape[1]):
            p, r = probabilities[sample, value], label[sample] == value
            dice.append(1.0 - (2.0 * (p * r).sum() + 1e-5) / (p.sum() + r.sum() + 1e-5))
    picked = np.take_along_axis(probabilities, label[:, None].astype(int), axis=1)
    return float(np.mean(dice) - np.log(picked).mean())


@pytest.mark.parametrize("n_outputs", [2, 4])
def test_equals_the_formula_written_out(n_outputs: int) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, n_outputs, 4, 5, 3))
    label = generator.integers(0, n_outputs, (3, 4, 5, 3)).astype(np.uint8)
    found = SegmentationLoss(n_outputs)(torch.from_numpy(logits), torch.from_numpy(label))
    assert float(found) == pytest.approx(_by_hand(logits, label), rel=1e-6)


def test_certain_and_right_is_zero_certain_and_wrong_is_large() -> None:
    label = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    label[:, :2] = 1
    right = torch.nn.functional.one_hot(label.long(), 2).movedim(-1, 1) * 100.0 - 50.0
    assert float(SegmentationLoss(2)(right, label)) == pytest.approx(0.0, abs=1e-5)
    assert float(SegmentationLoss(2)(-right, label)) == pytest.approx(101.0, rel=1e-3)


def test_a_sample_is_judged_without_its_neighbours() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    loss = SegmentationLoss(3)
    alone = [float(loss(logits[i : i + 1], label[i : i + 1])) for i in range(2)]
    assert float(loss(logits, label)) == pytest.approx(sum(alone) / 2, rel=1e-6)
