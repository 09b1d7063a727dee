"""params.yaml: every parameter of a run, one section a stage, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monai_tl.errors import ConfigError
from monai_tl.faults import fault_lines, parse_yaml, read_text
from monai_tl.sections import Fraction, Positive, Real, Section, Whole
from monai_tl.sections import IngestConfig as IngestConfig
from monai_tl.sections import Spacing as Spacing
from monai_tl.sections import SplitConfig as SplitConfig

PARAMS_FILE = "params.yaml"


Arm = Literal["transfer", "scratch"]
StrategyName = Literal[
    "scratch",
    "feature_extraction",
    "layer_retraining",
    "lp_ft",
    "gradual",
    "discriminative",
    "lora",
    "norm_only",
    "full",
    "l2_sp",
    "auto",
]
HEAD_FIRST: tuple[StrategyName, ...] = (
    "layer_retraining",
    "lp_ft",
    "gradual",
    "discriminative",
    "lora",
    "norm_only",
    "l2_sp",
)
"""Strategies that may begin with ``head_steps`` steps of the head alone."""


class NetworkConfig(Section):
    """A network by its name in the table of builders, with the builder's arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class IntensityConfig(Section):
    """How stored values become network input.

    ``window``: clip to low..high, then scale to 0..1. ``zscore``: clip to percentiles low..high of the case, then zero
    mean and unit variance of the case. ``minmax``: scale the case to 0..1.
    """

    rule: Literal["window", "zscore", "minmax"]
    low: Real | None = None
    high: Real | None = None

    @model_validator(mode="after")
    def _range(self) -> IntensityConfig:
        if self.rule == "window" and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("a window needs low < high")
        if self.rule == "zscore":
            low, high = self.low, self.high
            if (low is None) != (high is None):
                raise ValueError("zscore takes both percentiles or none")
            if low is not None and high is not None and not 0.0 <= low < high <= 100.0:
                raise ValueError("zscore percentiles need 0 <= low < high <= 100")
        return self


class PlanConfig(Section):
    """The source, and what overrides its contract.

    Attributes:
        source: Folder of a pretrained source (card.yaml); null trains from scratch only and then needs ``network``.
        network: Used when there is no source.
        spacing_mm, intensity: Null adopts the source's contract, or the fingerprint's where there is no source.
        patch_size_vox: Null derives it from the fingerprint and the source's size rule. May be smaller than the
            source's minimum (training costs less, the source is further from what it knows), not than the network's.
    """

    source: str | None
    network: NetworkConfig | None = Field(default=None, validate_default=True)
    spacing_mm: Spacing | None = None
    intensity: IntensityConfig | None = None
    patch_size_vox: tuple[Positive, Positive, Positive] | None = None
    max_patch_voxels: Positive = 262_144

    @field_validator("network")
    @classmethod
    def _is_there_without_source(cls, network: NetworkConfig | None, info: ValidationInfo) -> NetworkConfig | None:
        # a source that is itself at fault is not in the data
        if network is None and info.data.get("source", "") is None:
            raise ValueError("is needed when plan.source is null")
        return network


class PreprocessConfig(Section):
    """Arrays on the plan's grid.

    Attributes:
        image_dtype: Storage type of the arrays.
        crop_margin_mm: Kept around the foreground.
        max_failed_fraction: The stage fails when more than this share of the cases cannot be prepared; a smaller
            share is listed and left out.
    """

    image_dtype: Literal["float16", "float32"] = "float32"
    crop_margin_mm: Annotated[Real, Field(ge=0.0)] = 10.0
    max_failed_fraction: Fraction = 0.5


class FinetuneConfig(Section):
    """One network for each arm and fold.

    Attributes:
        arms: ``transfer`` starts from the source; ``scratch`` is its twin: same network, data, budget and seed.
        folds: Which folds to train; each arm's prediction is their mean.
        strategy: How the transfer arm is tuned (docs/strategies.md); ``auto`` chooses by rule and writes the reason.
            The twin always trains everything.
        min_transferred: The share of the body's parameters that must come across, or loading is an error.
        max_steps: Budget of each arm, optimiser steps.
        head_steps: ``lp_ft``, ``gradual``: of these, the first ones train the head alone; so do the other strategies
            between ``feature_extraction`` and ``full``, where part of the head is fresh. 0 leaves this out.
        n_groups: ``layer_retraining``: how many layer groups train, counted from the output, the head included.
        group_steps: ``gradual``: steps from one thawed group to the next.
        layer_decay: ``discriminative``: the rate of a group is ``learning_rate * layer_decay**(groups to the head)``.
        lora_rank, lora_alpha: ``lora``: rank of each update, and its factor times the rank.
        l2_sp_weight: ``l2_sp``: share of the distance to the pretrained values that a step of rate 1 takes back.
        feature_variants: ``feature_extraction``: so many epochs of samples differ by augmentation; then they come
            again, and their features are not computed anew. Without augmentation one is enough.
        feature_cache_mib: Disk that these features may take; fewer variants are kept where they do not fit.
        find_learning_rate: Find ``learning_rate`` by a range test before training, in place of the one given.
        ema_decay: Average the weights over about ``1 / (1 - ema_decay)`` steps, and validate and keep the average;
            0 is off.
        patience: Early stop after so many validations without a better Dice.
        n_threads: CPU threads; recorded, because results depend on it to the last bit.
    """

    arms: tuple[Arm, ...] = ("transfer", "scratch")
    folds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
    strategy: StrategyName = "lp_ft"
    seed: Whole = 0
    min_transferred: Fraction = 0.5
    max_steps: Positive = 200
    head_steps: Annotated[Whole, Field(ge=0)] = Field(default=60, validate_default=True)
    n_groups: Positive = 2
    group_steps: Positive = 10
    layer_decay: Annotated[Real, Field(gt=0.0, le=1.0)] = 0.8
    lora_rank: Positive = 4
    lora_alpha: Annotated[Real, Field(gt=0.0)] = 8.0
    feature_variants: Positive = 4
    feature_cache_mib: Positive = 4096
    batch_size: Positive = 2
    learning_rate: Annotated[Real, Field(gt=0.0)] = 1e-3
    head_learning_rate: Annotated[Real, Field(gt=0.0)] = 5e-3
    find_learning_rate: bool = False
    weight_decay: Annotated[Real, Field(ge=0.0)] = 1e-5
    l2_sp_weight: Annotated[Real, Field(ge=0.0)] = Field(default=10.0, validate_default=True)
    warmup_steps: Annotated[Whole, Field(ge=0)] = 10
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    gradient_clip: Annotated[Real, Field(gt=0.0)] = 12.0
    ema_decay: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.0
    foreground_fraction: Fraction = 0.67
    augmentation: Literal["none", "light", "strong"] = "light"
    validate_every: Positive = 25
    patience: Positive = 8
    n_threads: Positive = 2

    @field_validator("arms", "folds")
    @classmethod
    def _are_given_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError("must be given once each, and at least one")
        return values

    @field_validator("strategy")
    @classmethod
    def _is_one_of_the_arm(cls, strategy: StrategyName, info: ValidationInfo) -> StrategyName:
        # with the source's weights in place it would be `full` under another name
        if strategy == "scratch" and "transfer" in info.data.get("arms", ()):
            raise ValueError("'scratch' takes no weights, but finetune.arms has 'transfer'; set arms: [scratch]")
        return strategy

    @field_validator("head_steps")
    @classmethod
    def _leave_steps_for_the_body(cls, head_steps: int, info: ValidationInfo) -> int:
        max_steps = info.data.get("max_steps")
        strategy = info.data.get("strategy")
        if strategy in HEAD_FIRST and max_steps is not None and head_steps >= max_steps:
            raise ValueError(f"is {head_steps}, but {strategy} needs it below max_steps, which is {max_steps}")
        return head_steps

    @field_validator("l2_sp_weight")
    @classmethod
    def _do_not_overshoot(cls, weight: float, info: ValidationInfo) -> float:
        rate = info.data.get("learning_rate")
        if info.data.get("strategy") == "l2_sp" and rate is not None and weight * rate > 1.0:
            raise ValueError(f"is {weight:g}, but l2_sp needs it at most 1 / learning_rate, which is {1 / rate:g}")
        return weight


class PredictConfig(Section):
    """Sliding windows over each test case."""

    overlap: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.5
    blending: Literal["gaussian", "constant"] = "gaussian"
    batch_size: Positive = 2
    n_threads: Positive = 2


class EvaluateConfig(Section):
    """Scores, intervals, the verdict.

    Attributes:
        surface_tolerance_mm: Largest surface distance counted as agreement.
        null_margin: A difference whose whole interval lies within plus or minus this is called null for certain.
    """

    surface_tolerance_mm: Annotated[Real, Field(gt=0.0)] = 2.0
    n_bootstrap: Annotated[Whole, Field(ge=200)] = 5000
    confidence: Annotated[Real, Field(gt=0.5, lt=1.0)] = 0.95
    null_margin: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.01
    seed: Whole = 0


class ExportConfig(Section):
    """What goes out.

    Attributes:
        arm: ``best`` takes the transfer arm unless the verdict is harm.
        identity: ``pseudonymous`` writes case ids in place of the patient's identity; ``source`` copies it,
            so a PACS accepts the object as it is. References to the source series are true in both.
    """

    arm: Literal["best", "transfer", "scratch"] = "best"
    identity: Literal["pseudonymous", "source"] = "pseudonymous"
    series_description: str = Field(default="monai_tl segmentation", max_length=64)
    series_number: Annotated[Whole, Field(ge=1, le=9999)] = 9001


class Params(Section):
    """All of params.yaml: one section a stage."""

    ingest: IngestConfig
    split: SplitConfig = SplitConfig()
    plan: PlanConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()


def parse_params(content: Any, where: str = PARAMS_FILE) -> Params:
    """Check a parsed mapping.

    Raises:
        ConfigError: All faults, each with its key path.
    """
    if not isinstance(content, dict):
        raise ConfigError("the file holds no mapping of sections", where)
    faults: list[str] = []
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        faults = fault_lines(error, Params)
    # looked for also when a section has faults of its own, so that all are told at once
    faults += _faults_between_sections(content, {line.split(":")[0] for line in faults})
    if faults:
        raise ConfigError(faults, where)
    return params


def _faults_between_sections(content: dict[str, Any], faulty: set[str]) -> Iterator[str]:
    """What does not fit together; of lists that have faults of their own, the items that can be judged."""

    def value(section: str, key: str) -> Any:
        default = Params.model_fields[section].annotation.model_fields[key].default  # type: ignore[union-attr]
        given = content.get(section, {})
        return given.get(key, default) if isinstance(given, dict) else None

    def items(section: str, key: str) -> list[Any]:
        found = value(section, key)
        return list(found) if isinstance(found, list | tuple) else []

    n_folds = value("split", "n_folds")
    if not faulty & {"split", "split.n_folds"}:
        too_high = sorted({fold for fold in items("finetune", "folds") if type(fold) is int and fold >= n_folds})
        if too_high:
            yield f"finetune.folds: has {too_high}, but split.n_folds is {n_folds} (folds count from 0)"
    has_no_source = not faulty & {"plan", "plan.source"} and value("plan", "source") is None
    if has_no_source and "transfer" in items("finetune", "arms"):
        yield "finetune.arms: has 'transfer', but plan.source is null; name a source, or set arms: [scratch]"


def load_params(workspace: Path) -> Params:
    """Read and check a workspace's params.yaml.

    Raises:
        ConfigError: It is missing, is no YAML, or has faults; all of them are listed.
    """
    missing = f"not found in {workspace}; run 'monai-tl init DIR' to make a workspace"
    return parse_params(parse_yaml(read_text(workspace / PARAMS_FILE, missing), PARAMS_FILE))
