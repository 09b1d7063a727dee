"""params.yaml: every parameter of a run, one section a stage, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.errors import ConfigError
from monai_tl.faults import fault_lines, parse_yaml, read_text
from monai_tl.labels import ClassSpec, LabelScheme, class_faults

PARAMS_FILE = "params.yaml"


def _refuse_truth(value: Any) -> Any:
    # YAML's yes, no, on, off are truth values, and Python would take them for 1 and 0
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Arm = Literal["transfer", "scratch"]
CONTRACT_ITEMS = (
    "modality", "channels", "orientation", "spacing", "intensity", "window", "field of view", "classes",
)  # fmt: skip
"""Lines of a source's contract."""
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
PrecisionName = Literal["float32", "bfloat16"]
Real = Annotated[float, BeforeValidator(_refuse_truth)]
Whole = Annotated[int, Field(strict=True)]
Fraction = Annotated[Real, Field(ge=0.0, le=1.0)]
Positive = Annotated[Whole, Field(ge=1)]
Length = Annotated[Real, Field(gt=0.0, le=100.0)]
Spacing = tuple[Length, Length, Length]


class Section(BaseModel):
    """A part of params.yaml: frozen, nothing extra allowed, every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestConfig(Section):
    """Studies in, cases out.

    Attributes:
        source: Folder of DICOM, or of a data set in Decathlon or nnU-Net layout, relative to the workspace.
        layout: ``auto`` looks for dataset.json.
        key_file: Secret for pseudonyms; outside the repository, mode 0600. Made by ``monai-tl key``.
        classes: What to segment, in the order of label values.
        min_slices: A series with fewer is refused.
        max_rejected_fraction: The stage fails when more than this share of the image series is refused.
    """

    source: str
    layout: Literal["auto", "dicom", "decathlon", "nnunet"] = "auto"
    key_file: str = DEFAULT_KEY_FILE
    classes: tuple[ClassSpec, ...] = Field(min_length=1, max_length=254)
    min_slices: Positive = 5
    max_rejected_fraction: Fraction = 0.5

    @field_validator("classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[ClassSpec, ...]) -> tuple[ClassSpec, ...]:
        if faults := class_faults(classes):
            raise ValueError("\n".join(faults))
        return classes

    @property
    def scheme(self) -> LabelScheme:
        """The classes as a label scheme."""
        return LabelScheme(classes=self.classes)


class SplitConfig(Section):
    """Patients into folds and a test set.

    Attributes:
        test_ids_file: JSON list of case ids that form the test set; then test_fraction is not used.
    """

    seed: Whole = 0
    n_folds: Annotated[Whole, Field(ge=2, le=20)] = 4
    test_fraction: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.3
    test_ids_file: str | None = None
    n_train_cases: Positive | None = None


class NetworkConfig(Section):
    """A network by its name in the table of builders, with the builder's arguments."""

    name: str
    arguments: dict[str, Any] = {}


class IntensityConfig(Section):
    """How stored values become network input.

    ``window``: clip to low..high, then scale to the output range. ``zscore``: clip to percentiles low..high of the
    case, then zero mean and unit variance of the case. ``minmax``: clip to percentiles low..high of the case, then
    scale the case to the output range.

    Attributes:
        low, high: Stored values (``window``) or percentiles, 0 to 100 (``zscore``, ``minmax``; null clips nothing).
        output: What the lower and the upper end become (``window``, ``minmax``). A fixed z-score, (value − mean) / sd
            with a mean and sd of the source's data, is a window whose output is that of its ends.
        nonzero: ``zscore`` takes its statistics over voxels that are not 0, and leaves the others at 0.
    """

    rule: Literal["window", "zscore", "minmax"]
    low: Real | None = None
    high: Real | None = None
    output: tuple[Real, Real] = (0.0, 1.0)
    nonzero: bool = False

    @model_validator(mode="after")
    def _range(self) -> IntensityConfig:
        if self.rule == "window" and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("a window needs low < high")
        if self.rule != "window":
            low, high = self.low, self.high
            if (low is None) != (high is None):
                raise ValueError(f"{self.rule} takes both percentiles or none")
            if low is not None and high is not None and not 0.0 <= low < high <= 100.0:
                raise ValueError(f"{self.rule} percentiles need 0 <= low < high <= 100")
        if self.output[0] >= self.output[1]:
            raise ValueError("output needs its lower end first")
        if self.rule == "zscore" and self.output != (0.0, 1.0):
            raise ValueError("zscore has no output range")
        if self.nonzero and self.rule != "zscore":
            raise ValueError("nonzero is for zscore alone")
        return self


class PlanConfig(Section):
    """The source, and what overrides its contract.

    Attributes:
        source: Folder of a pretrained source (card.yaml); null trains from scratch only and then needs ``network``.
        network: Used when there is no source.
        spacing_mm, intensity: Null adopts the source's contract, or the fingerprint's where there is no source.
        patch_size_vox: Null derives it from the fingerprint and the source's size rule. May be smaller than the
            source's minimum (training costs less, the source is further from what it knows), not than the network's.
        accept_broken: Lines of the contract (``[field of view]``) that may be broken without the plan being refused.
            The modality is none of them.
    """

    source: str | None
    network: NetworkConfig | None = Field(default=None, validate_default=True)
    spacing_mm: Spacing | None = None
    intensity: IntensityConfig | None = None
    patch_size_vox: tuple[Positive, Positive, Positive] | None = None
    max_patch_voxels: Positive = 262_144
    accept_broken: tuple[str, ...] = ()

    @field_validator("accept_broken")
    @classmethod
    def _are_lines_of_the_contract(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        faults = [f"{item!r} is no line of the contract" for item in items if item not in CONTRACT_ITEMS]
        if "modality" in items:
            faults.append("another modality cannot be accepted: its intensities mean other things")
        faults += ["a line is given twice"] if len(set(items)) != len(items) else []
        if faults:
            raise ValueError(f"{'; '.join(faults)}; choose from {', '.join(CONTRACT_ITEMS[1:])}")
        return items

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
    """One network for each arm, fold and seed.

    Attributes:
        arms: ``transfer`` starts from the source; ``scratch`` is its twin: same network, data, budget and seeds.
        folds: Which folds to train; each arm's prediction is their mean.
        seeds: Each is one more training of every arm and fold; the verdict resamples them beside the patients.
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
        precision: Of the network's products in training and validation; weights and optimiser are float32. ``bfloat16``
            halves a step where the processor has it (AVX-512 BF16, AMX; recent GPUs).
        n_threads: CPU threads; recorded, because results depend on it to the last bit.
    """

    arms: tuple[Arm, ...] = ("transfer", "scratch")
    folds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
    strategy: StrategyName = "lp_ft"
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
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
    precision: PrecisionName = "float32"
    n_threads: Positive = 2

    @field_validator("arms", "folds", "seeds")
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

    @property
    def seed(self) -> int:
        """The seed of one training: the first."""
        return self.seeds[0]


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
        source_set: Data set of the source's own task, in any layout that ingest reads, that neither training saw; then
            the report says what tuning cost there. Null measures nothing.
        source_classes: Its classes, of those the source has; null takes the card's names with their label values in
            order.
    """

    surface_tolerance_mm: Annotated[Real, Field(gt=0.0)] = 2.0
    n_bootstrap: Annotated[Whole, Field(ge=200)] = 5000
    confidence: Annotated[Real, Field(gt=0.5, lt=1.0)] = 0.95
    null_margin: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.01
    seed: Whole = 0
    source_set: str | None = None
    source_classes: tuple[ClassSpec, ...] | None = Field(default=None, min_length=1, max_length=254)

    @field_validator("source_classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[ClassSpec, ...] | None) -> tuple[ClassSpec, ...] | None:
        if faults := class_faults(classes or ()):
            raise ValueError("\n".join(faults))
        return classes


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


class CurveTraining(Section):
    """How one point of the curve is trained, where that differs from the section finetune.

    Attributes:
        max_steps: Full budget of a point, optimiser steps; null takes finetune's. All else that is counted in steps is
            scaled along.
        validate_every: Steps between validations of a full budget; null takes finetune's, scaled.
        val_fraction: Largest share of a point's labels that choose the best weights instead of training; with 0, or
            where no whole patient fits in, the last weights count.
        keep_weights: Whether a point keeps its model, beside its scores.
    """

    max_steps: Positive | None = None
    validate_every: Positive | None = None
    val_fraction: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.25
    keep_weights: bool = False


class CurveConfig(Section):
    """Dice against labels and against steps: each combination is one training, and one stage run of DVC.

    Attributes:
        labels: Labels in all, those for validation included; ``all`` takes all outside the test set.
        strategies: Names of the ladder; ``scratch`` is the twin that the savings are measured against.
        seeds: Each draws its own nested subsets, weights and order, the same for all strategies.
        steps: Budgets below the full one, each a training with its own schedule; the full one is among ``labels``.
        steps_labels: How many labels these have; one of ``labels``.
        training: What a point is trained by.
    """

    labels: tuple[Positive | Literal["all"], ...] = Field(min_length=1)
    strategies: tuple[StrategyName, ...] = Field(min_length=1)
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = Field(min_length=1)
    steps: tuple[Positive, ...] = Field(min_length=1)
    steps_labels: Positive | Literal["all"]
    training: CurveTraining = CurveTraining()

    @field_validator("labels", "strategies", "seeds", "steps")
    @classmethod
    def _are_given_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("must be given once each")
        return values

    @field_validator("steps_labels")
    @classmethod
    def _is_one_of_the_labels(cls, value: int | str, info: ValidationInfo) -> int | str:
        if "labels" in info.data and value not in info.data["labels"]:
            raise ValueError("must be one of curve.labels, whose points are the full budget")
        return value


class Params(Section):
    """All of params.yaml: one section a stage; ``curve`` only where there is one."""

    ingest: IngestConfig
    split: SplitConfig = SplitConfig()
    plan: PlanConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    curve: CurveConfig | None = None


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
    if "transfer" not in items("finetune", "arms") and isinstance(value("evaluate", "source_set"), str):
        yield "evaluate.source_set: is given, but finetune.arms has no 'transfer' that could forget; leave it out"
    if not faulty & {"curve", "finetune", "finetune.max_steps"} and isinstance(content.get("curve"), dict):
        yield from _curve_faults(content["curve"], value("finetune", "max_steps"), has_no_source)


def _curve_faults(curve: dict[str, Any], max_steps: int, has_no_source: bool) -> Iterator[str]:
    training = curve.get("training")
    full = (training.get("max_steps") if isinstance(training, dict) else None) or max_steps
    steps = curve.get("steps")
    too_many = [one for one in steps if type(one) is int and one >= full] if isinstance(steps, list) else []
    if too_many:
        yield f"curve.steps: has {too_many}, but a full budget is {full} steps, and these are the smaller ones"
    strategies = curve.get("strategies")
    if has_no_source and isinstance(strategies, list) and set(map(str, strategies)) - {"scratch"}:
        yield "curve.strategies: plan.source is null, so there is nothing to transfer; name a source, or set [scratch]"


def load_params(workspace: Path) -> Params:
    """Read and check a workspace's params.yaml.

    Raises:
        ConfigError: It is missing, is no YAML, or has faults; all of them are listed.
    """
    missing = f"not found in {workspace}; run 'monai-tl init DIR' to make a workspace"
    return parse_params(parse_yaml(read_text(workspace / PARAMS_FILE, missing), PARAMS_FILE))
