"""Trained models applied to cases on the plan's grid; the models of several folds are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from monai_tl.errors import ContractError
from monai_tl.networks import windows
from monai_tl.networks.device import place_network, set_up_torch
from monai_tl.networks.windows import Blending
from monai_tl.records import Plan
from monai_tl.sources.audit import load_trained

PLAN_FILE = "plan.json"
"""Beside a model's card: how its input is prepared."""


@dataclass(frozen=True)
class Predictor:
    """Networks of one plan, ready to predict.

    Attributes:
        networks: In eval mode on one device, one a fold.
        plan: How their input must be prepared.
    """

    networks: tuple[nn.Module, ...]
    plan: Plan

    def predict_probabilities(
        self, image: NDArray[Any], overlap: float = 0.5, blending: Blending = "gaussian", batch_size: int = 1
    ) -> NDArray[np.float32]:
        """Class probabilities of one case, the mean over the models.

        Args:
            image: (C, I, J, K) prepared by the plan; may be memory-mapped.
            overlap: Share of a window that the next one covers again.
            blending: Weight of a window's voxels.
            batch_size: Windows a pass.

        Returns:
            (n_outputs, I, J, K), background first.

        Raises:
            ContractError: The image has another number of channels than the plan.
        """
        if image.ndim != 4 or image.shape[0] != self.plan.n_channels:
            raise ContractError(
                f"the model takes {self.plan.n_channels} channels, the image has shape {image.shape}; prepare it by "
                "the model's own plan"
            )
        plan = self.plan
        return windows.predict_probabilities(
            self.networks, image, plan.patch_size_vox, plan.size_rule, overlap, blending, batch_size
        )


def load_models(folders: Sequence[Path], n_threads: int) -> Predictor:
    """Load models that are averaged.

    Args:
        folders: Model folders of the finetune stage; at least one.
        n_threads: CPU threads; results depend on it to the last bit.

    Raises:
        ContractError: There is none, or their plans differ, so that one image cannot serve them all.
        SourceError: A folder is no model.
        WeightsError: Weights are damaged or do not fit.
    """
    if not folders:
        raise ContractError("no model folder was given; give at least one folder of artifacts/models")
    device = set_up_torch(n_threads)
    plans, networks = [], []
    for folder in folders:
        network, source = load_trained(folder)
        if source.card.output != "softmax":
            raise ContractError(f"{folder}: gives {source.card.output}, not softmax; fine-tune it first")
        plans.append(Plan.read(folder / PLAN_FILE))
        networks.append(place_network(network, device))
    for folder, plan in zip(folders, plans, strict=True):
        if plan != plans[0]:
            raise ContractError(
                f"{folder} was trained by another plan than {folders[0]}; average models of one run only"
            )
    return Predictor(tuple(networks), plans[0])
