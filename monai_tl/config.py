"""params.yaml: every parameter of a run, one section a stage, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monai_tl.errors import ConfigError
from monai_tl.labels import ClassSpec, LabelScheme

PARAMS_FILE = "params.yaml"

Arm = Literal["transfer", "scratch"]
StrategyName = Literal["scratch", "feature_extraction", "lp_ft", "full"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Spacing = tuple[
    Annotated[float, Field(gt=0.0, le=100.0)],
    Annotated[float, Field(gt=0.0, le=100.0)],
    Annotated[float, Field(gt=0.0, le=100.0)],
]


class Section(BaseModel):
    """A part of params.yaml: frozen, nothing extra allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    key_file: str = "~/.config/monai_tl/pseudonym.key"
    classes: tuple[ClassSpec, ...] = Field(min_length=1, max_length=254)
    min_slices: Positive = 5
    max_rejected_fraction: Fraction = 0.5

    @model_validator(mode="after")
    def _names_differ(self) -> IngestConfig:
        names = [spec.name.casefold() for spec in self.classes]
        if len(set(names)) != len(names) or "background" in names:
            raise ValueError("class names must differ and none may be 'background'")
        return self

    @property
    def scheme(self) -> LabelScheme:
        """The classes as a label scheme."""
        return LabelScheme(classes=self.classes)


class SplitConfig(Section):
    """Patients into folds and a test set.

    Attributes:
        test_ids_file: JSON list of case ids that form the test set; then test_fraction is not used.
    """

    seed: int = 0
    n_folds: Annotated[int, Field(ge=2, le=20)] = 4
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    test_ids_file: str | None = None
    n_train_cases: Positive | None = None


class NetworkConfig(Section):
    """A network by its name in the table of builders, with the builder's arguments."""

    name: str
    arguments: dict[str, Any] = {}


class IntensityConfig(Section):
    """How stored values become network input.

    ``window``: clip to low..high, then scale to 0..1. ``zscore``: clip to percentiles low..high of the case, then zero
    mean and unit variance of the case. ``minmax``: scale the case to 0..1.
    """

    rule: Literal["window", "zscore", "minmax"]
    low: float | None = None
    high: float | None = None

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
    network: NetworkConfig | None = None
    spacing_mm: Spacing | None = None
    intensity: IntensityConfig | None = None
    patch_size_vox: tuple[Positive, Positive, Positive] | None = None
    max_patch_voxels: Positive = 262_144

    @model_validator(mode="after")
    def _has_network(self) -> PlanConfig:
        if self.source is None and self.network is None:
            raise ValueError("without a source a network is needed")
        return self


class PreprocessConfig(Section):
    """Arrays on the plan's grid.

    Attributes:
        image_dtype: Storage type of the arrays.
        crop_margin_mm: Kept around the foreground.
        max_failed_fraction: The stage fails when more than this share of the cases cannot be prepared; a smaller
            share is listed and left out.
    """

    image_dtype: Literal["float16", "float32"] = "float32"
    crop_margin_mm: Annotated[float, Field(ge=0.0)] = 10.0
    max_failed_fraction: Fraction = 0.5


class FinetuneConfig(Section):
    """One network for each arm and fold.

    Attributes:
        arms: ``transfer`` starts from the source; ``scratch`` is its twin: same network, data, budget and seed.
        folds: Which folds to train; each arm's prediction is their mean.
        strategy: How the transfer arm is tuned; the twin always trains everything.
        min_transferred: The share of the body's parameters that must come across, or loading is an error.
        max_steps: Budget of each arm, optimiser steps.
        head_steps: ``lp_ft``: of these, the first ones train the head alone.
        patience: Early stop after so many validations without a better Dice.
        n_threads: CPU threads; recorded, because results depend on it to the last bit.
    """

    arms: tuple[Arm, ...] = ("transfer", "scratch")
    folds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    strategy: StrategyName = "lp_ft"
    seed: int = 0
    min_transferred: Fraction = 0.5
    max_steps: Positive = 200
    head_steps: Annotated[int, Field(ge=0)] = 60
    batch_size: Positive = 2
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    head_learning_rate: Annotated[float, Field(gt=0.0)] = 5e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    gradient_clip: Annotated[float, Field(gt=0.0)] = 12.0
    foreground_fraction: Fraction = 0.67
    augmentation: Literal["none", "light", "strong"] = "light"
    validate_every: Positive = 25
    patience: Positive = 8
    n_threads: Positive = 2

    @model_validator(mode="after")
    def _arms_and_folds(self) -> FinetuneConfig:
        if not self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError("arms must be given once each")
        if not self.folds or len(set(self.folds)) != len(self.folds):
            raise ValueError("folds must be given once each")
        if self.strategy == "lp_ft" and self.head_steps >= self.max_steps:
            raise ValueError("lp_ft needs head_steps < max_steps")
        return self


class PredictConfig(Section):
    """Sliding windows over each test case."""

    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    blending: Literal["gaussian", "constant"] = "gaussian"
    batch_size: Positive = 2
    n_threads: Positive = 2


class EvaluateConfig(Section):
    """Scores, intervals, the verdict.

    Attributes:
        surface_tolerance_mm: Largest surface distance counted as agreement.
        null_margin: A difference whose whole interval lies within plus or minus this is called null for certain.
    """

    surface_tolerance_mm: Annotated[float, Field(gt=0.0)] = 2.0
    n_bootstrap: Annotated[int, Field(ge=200)] = 5000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    null_margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    seed: int = 0


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
    series_number: Annotated[int, Field(ge=1, le=9999)] = 9001


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

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        too_high = [fold for fold in self.finetune.folds if fold >= self.split.n_folds]
        if too_high:
            raise ValueError(
                f"finetune.folds has {too_high}, but split.n_folds is {self.split.n_folds} (folds count from 0)"
            )
        if self.plan.source is None and "transfer" in self.finetune.arms:
            raise ValueError("finetune.arms has 'transfer', but plan.source is null")
        return self


def parse_params(content: Any, where: str = PARAMS_FILE) -> Params:
    """Check a parsed mapping.

    Raises:
        ConfigError: All faults, each with its key path.
    """
    if not isinstance(content, dict):
        raise ConfigError("the file holds no mapping of sections", where)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ConfigError(fault_lines(error), where) from None


def fault_lines(error: ValidationError) -> list[str]:
    """One line a fault of a pydantic error, each beginning with its key path."""
    return [_fault(item) for item in error.errors()]


def _fault(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"]) or "(file)"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "no such parameter; see docs for the ones there are"
    elif item["type"] == "missing":
        message = "is missing"
    return f"{path}: {message}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_params(workspace: Path) -> Params:
    """Read and check a workspace's params.yaml.

    Raises:
        ConfigError: It is missing, is no YAML, or has faults; all of them are listed.
    """
    path = workspace / PARAMS_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"not found in {workspace}; run 'monai-tl init DIR' to make a workspace") from None
    return parse_params(parse_yaml(text, PARAMS_FILE), PARAMS_FILE)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML as plain data; a key given twice is a fault.

    Raises:
        ConfigError: It is no YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{line}no valid YAML: {getattr(error, 'problem', error)}", where) from None
    except (TypeError, ValueError, RecursionError) as error:
        # keys that are lists, dates that do not exist, endless nesting
        raise ConfigError(f"no valid YAML: {error}", where) from None
