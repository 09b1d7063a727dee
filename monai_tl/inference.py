"""Trained models applied to cases on the plan's grid; the models of several folds are averaged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from monai_tl.config import PrecisionName, PredictConfig
from monai_tl.dataset.intensity import scale_intensity
from monai_tl.dataset.restoring import Restoring
from monai_tl.errors import ConfigError, ContractError
from monai_tl.fast_records import FAST_FILE, FastRecord
from monai_tl.geometry import Shape
from monai_tl.networks.device import describe_torch, place_to_predict, set_up_torch
from monai_tl.networks.memory import PassCost, is_local, measure_pass
from monai_tl.networks.onnx_engine import OnnxNetwork
from monai_tl.networks.passes import Passing
from monai_tl.networks.precision import fastest_precision
from monai_tl.networks.slabs import Blend, Blending, Skip, Slab, stream_probabilities
from monai_tl.networks.tiling import Tiling, exact_tiling, fast_tiling
from monai_tl.networks.windows import collect_probabilities, network_size, window_size
from monai_tl.records import Plan, PreparedCase
from monai_tl.sources.audit import load_trained

if TYPE_CHECKING:
    # the training tries fast mode, and does not depend on what counts
    from monai_tl.metrics.counting import CaseCounting

PLAN_FILE = "plan.json"
"""Beside a model's card: how its input is prepared."""


Engine = Literal["torch", "onnx"]
LOSSY = "no way of fast mode kept exact mode's Dice on the model's validation cases"
_GIB = float(1 << 30)


@dataclass(frozen=True)
class Predictor:
    """Networks of one plan, ready to predict.

    Attributes:
        networks: In eval mode on one device, one a fold.
        plan: How their input must be prepared.
        engine: What runs them.
        onnx: The same networks for the engine onnx.
        fast: What validation cases allowed fast mode; None where they were not asked.
    """

    networks: tuple[nn.Module, ...]
    plan: Plan
    engine: Engine = "torch"
    onnx: tuple[OnnxNetwork, ...] = ()
    fast: FastRecord | None = None

    def predict_probabilities(
        self, image: NDArray[Any], overlap: float = 0.5, blending: Blending = "gaussian", batch_size: int = 1
    ) -> NDArray[np.float32]:
        """Class probabilities of one case in exact mode, the mean over the models.

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
        config = PredictConfig(overlap=overlap, blending=blending, batch_size=batch_size)
        return collect_probabilities(self.stream(image, config), _shape_of(image))

    def predict_label(
        self, image: NDArray[Any], record: PreparedCase, config: PredictConfig, counting: CaseCounting | None = None
    ) -> NDArray[np.uint8]:
        """Label map of one case on its native grid, the mean over the models.

        No class has a whole volume of probabilities at any time: each slab becomes labels once it is finished.

        Args:
            image: (C, I, J, K) prepared by the plan; may be memory-mapped.
            record: What the way back needs, as preparing gave it.
            config: Mode, windows, mirrored passes.
            counting: Sees all probabilities too; the label does not depend on it.

        Returns:
            (I, J, K) uint8 of ``record.native_shape``.

        Raises:
            ContractError: The image has another number of channels than the plan.
            GeometryError: The image is not the record's.
        """
        restoring = Restoring(record)
        n_members = 0 if counting is None else counting.n_members
        for slab in self.stream(image, config, n_members > 0):
            if counting is not None:
                counting.add(slab.axis, slab.start, slab.values)
            restoring.add(slab.axis, slab.start, slab.values[: len(slab.values) - n_members])
        return restoring.finish()

    def count_members(self, config: PredictConfig) -> int:
        """Of how many predictions the mean is that can be told apart: networks, else mirrored passes; 0 of one."""
        return self._passing(config, True).n_members

    def _passing(self, config: PredictConfig, tells_members: bool) -> Passing:
        axes = mirrored_axes(config.flips, self.plan.orientation)
        return Passing(self.onnx or self.networks, self.precision(config)[0], axes, tells_members)

    def stream(self, image: NDArray[Any], config: PredictConfig, tells_members: bool = False) -> Iterator[Slab]:
        """Class probabilities of one case in slabs, of which each is gone when the next one comes.

        Args:
            image: (C, I, J, K) prepared by the plan; may be memory-mapped.
            config: Mode, windows, mirrored passes.
            tells_members: Whether the foreground probability by each of ``count_members`` stands behind the classes.

        Raises:
            ContractError: The image has another number of channels than the plan.
        """
        if image.ndim != 4 or image.shape[0] != self.plan.n_channels:
            raise ContractError(
                f"the model takes {self.plan.n_channels} channels, the image has shape {image.shape}; prepare it by "
                "the model's own plan"
            )
        config, rule = self.settled(config), self.plan.size_rule
        is_fast = config.mode == "fast"
        passing = self._passing(config, tells_members)
        blend = Blend(
            config.blending,
            config.batch_size,
            rule.padding,
            dtype=torch.float16 if is_fast else torch.float32,
            skip=skip_outside(self.plan, image, self._cost.n_outputs + passing.n_members) if is_fast else None,
        )
        return stream_probabilities(passing, image, self.tiling(_shape_of(image), config), blend)

    def settled(self, config: PredictConfig) -> PredictConfig:
        """The same; exact mode where no way of fast mode kept its Dice on validation cases."""
        is_lossy = self.fast is not None and self.fast.is_within is False
        return config.model_copy(update={"mode": "exact"}) if is_lossy else config

    def tiling(self, shape: Shape, config: PredictConfig) -> Tiling:
        """Windows over a case of some shape."""
        rule = self.plan.size_rule
        window = window_size(shape, self.plan.patch_size_vox, rule)
        config, allowed = self.settled(config), self._allowed
        if config.mode == "exact" or allowed.windows == "exact":
            return exact_tiling(shape, window, config.overlap)
        return fast_tiling(
            shape,
            window,
            rule,
            grows=allowed.windows == "large",
            n_outputs=self._cost.n_outputs,
            voxel_bytes=self._cost.voxel_bytes,
            budget=config.memory_gib * _GIB,
        )

    def precision(self, config: PredictConfig) -> tuple[PrecisionName, str]:
        """Number format of the products, and why."""
        if self.settled(config).mode == "exact":
            return "float32", "the mode exact computes in it"
        if self.engine == "onnx":
            return "float32", "the engine onnx computes in it"
        if self._allowed.precision == "float32":
            return "float32", self._allowed.why_float32()
        return fastest_precision(next(self.networks[0].parameters()).device)

    @property
    def _allowed(self) -> FastRecord:
        return self.careful if self.fast is None else self.fast

    @property
    def careful(self) -> FastRecord:
        """What fast mode does without a trial: larger windows for networks that look at neighbourhoods alone.

        Others, as with instance normalisation, whose statistics are the window's, may lose by them, and by less overlap
        too: 0.018 and 0.002 of Dice in a U-Net that was trained on hippocampi by small patches.
        """
        return FastRecord(windows="large" if self.is_local else "exact", precision="bfloat16")

    @cached_property
    def is_local(self) -> bool:
        """Whether each output depends on a neighbourhood alone, see ``networks.memory``."""
        return all(is_local(network) for network in self.networks)

    @cached_property
    def _cost(self) -> PassCost:
        return measure_pass(self.networks[0], self.plan.n_channels, network_size((1, 1, 1), self.plan.size_rule))

    def describe(self, config: PredictConfig) -> dict[str, Any]:
        """How labels come about: mode, engine, number format and why, what the results' bits depend on."""
        asked, config = config.mode, self.settled(config)
        precision, reason = self.precision(config)
        found: dict[str, Any] = {
            "mode": config.mode,
            "engine": self.engine,
            "precision": precision,
            "precision_reason": reason,
            "n_networks": len(self.networks),
            "flips": list(config.flips),
        }
        if config.mode == "fast":
            found["windows"] = _describe_windows(self._allowed, config)
            found["memory_gib"] = config.memory_gib
            found["n_trial_cases"] = self._allowed.n_cases
            found["keeps_dice"] = self._allowed.is_within
        else:
            found["windows"] = f"the plan's patch, overlap {config.overlap:g}"
            found |= {} if asked == "exact" else {"mode_reason": LOSSY}
        return found | {"software": describe_torch(next(self.networks[0].parameters()).device)}


def _describe_windows(allowed: FastRecord, config: PredictConfig) -> str:
    if allowed.windows == "exact":
        return f"the plan's patch, overlap {config.overlap:g}"
    if allowed.windows == "patch":
        return "the plan's patch, overlap a quarter"
    return "as large as memory_gib allows"


def mirrored_axes(flips: Sequence[str], orientation: str) -> tuple[int, ...]:
    """Axes of the network's grid that run along directions.

    Args:
        flips: ``LR``, ``AP``, ``SI``.
        orientation: Axis codes of the grid, e.g. ``RAS``.
    """
    return tuple(axis for axis, code in enumerate(orientation) if any(code in flip for flip in flips))


def skip_outside(plan: Plan, image: NDArray[Any], n_outputs: int) -> Skip | None:
    """What counts as empty in a prepared image, where the plan's contract has a foreground.

    Only a window of fixed ends says which value the threshold became; else empty is what has the lowest value of all.
    """
    if plan.foreground != "above":
        return None
    if plan.intensity.rule == "window":
        limits = (float(plan.intensity.low or 0.0), float(plan.intensity.high or 0.0))
        value = np.full((1, 1, 1), np.clip(plan.foreground_threshold, *limits), dtype=np.float32)
        level = float(scale_intensity(value, plan.intensity).astype(image.dtype)[0, 0, 0])
    else:
        level = float(image.min())
    return Skip(level, n_outputs)


def _shape_of(image: NDArray[Any]) -> Shape:
    i, j, k = (int(size) for size in image.shape[1:])
    return i, j, k


def with_engine(predictor: Predictor, engine: str, n_threads: int) -> Predictor:
    """The same networks run by another engine.

    Args:
        predictor: Of ``load_models``.
        engine: ``torch``; ``onnx``; or ``fastest``, which passes the plan's patch by both and keeps the faster one, so
            that two runs may differ in the last bits.
        n_threads: CPU threads.

    Raises:
        ConfigError: No such engine, or its package is missing.
    """
    if engine not in ("torch", "onnx", "fastest"):
        raise ConfigError(f"--engine: {engine!r} is none of torch, onnx, fastest", "arguments")
    if engine == "torch":
        return predictor
    by_onnx = replace(
        predictor, engine="onnx", onnx=tuple(OnnxNetwork(network, n_threads) for network in predictor.networks)
    )
    if engine == "onnx":
        return by_onnx
    return min((predictor, by_onnx), key=_seconds_of_a_window)


def _seconds_of_a_window(predictor: Predictor) -> float:
    plan, config = predictor.plan, PredictConfig(mode="fast")
    passing = Passing(predictor.onnx or predictor.networks, predictor.precision(config)[0])
    window = torch.zeros((1, plan.n_channels, *network_size(plan.patch_size_vox, plan.size_rule)))
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        passing(window)
        seconds.append(time.perf_counter() - started)
    # the first pass prepares, and a busy machine slows some
    return min(seconds[1:])


def load_models(folders: Sequence[Path], n_threads: int) -> Predictor:
    """Load models that are averaged.

    Args:
        folders: Model folders of the finetune stage; at least one.
        n_threads: CPU threads; results depend on it to the last bit.

    Raises:
        ContractError: There is none, or their plans differ, so that one image cannot serve them all.
        SourceError: A folder is no model.
        DataError: fast.json is damaged.
        WeightsError: Weights are damaged or do not fit.
    """
    if not folders:
        raise ContractError("no model folder was given; give at least one folder of artifacts/models")
    device = set_up_torch(n_threads)
    plans, networks = [], []
    records: list[FastRecord | None] = []
    for folder in folders:
        network, source = load_trained(folder)
        if source.card.output != "softmax":
            raise ContractError(f"{folder}: gives {source.card.output}, not softmax; fine-tune it first")
        plans.append(Plan.read(folder / PLAN_FILE))
        networks.append(place_to_predict(network, device))
        path = folder / FAST_FILE
        records.append(FastRecord.read(path) if path.is_file() else None)
    for folder, plan in zip(folders, plans, strict=True):
        if plan != plans[0]:
            raise ContractError(
                f"{folder} was trained by another plan than {folders[0]}; average models of one run only"
            )
    predictor = Predictor(tuple(networks), plans[0])
    if not any(records):
        return predictor
    # of a mean of models what all allow; one that was not tried is as careful as alone
    return replace(predictor, fast=reduce(FastRecord.joined, (record or predictor.careful for record in records)))
