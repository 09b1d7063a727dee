"""params.yaml: every parameter of a run, one section a stage, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from monai_tl.curve_config import CurveConfig as CurveConfig
from monai_tl.curve_config import CurveTraining as CurveTraining
from monai_tl.errors import ConfigError
from monai_tl.faults import fault_lines, parse_yaml, read_text
from monai_tl.finetune_config import Arm as Arm
from monai_tl.finetune_config import FinetuneConfig as FinetuneConfig
from monai_tl.finetune_config import PrecisionName as PrecisionName
from monai_tl.finetune_config import StrategyName as StrategyName
from monai_tl.labels import ClassSpec, class_faults
from monai_tl.sections import Fraction, Positive, Real, Section, Whole
from monai_tl.sections import InboxConfig as InboxConfig
from monai_tl.sections import IngestConfig as IngestConfig
from monai_tl.sections import ServeConfig as ServeConfig
from monai_tl.sections import Spacing as Spacing
from monai_tl.sections import SplitConfig as SplitConfig

PARAMS_FILE = "params.yaml"
CONTRACT_ITEMS = (
    "modality", "channels", "orientation", "spacing", "intensity", "window", "field of view", "classes",
)  # fmt: skip
"""Lines of a source's contract."""


class NetworkConfig(Section):
    """A network by its name in the table of builders, with the builder's arguments.

    Attributes:
        name: In the table of builders (docs/networks.md), or a plug-in's.
        arguments: Of the builder; those left out have its defaults.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class IntensityConfig(Section):
    """How stored values become network input.

    ``window``: clip to low..high, then scale to the output range. ``zscore``: clip to percentiles low..high of the
    case, then zero mean and unit variance of the case. ``minmax``: clip to percentiles low..high of the case, then
    scale the case to the output range.

    Attributes:
        rule: Which of them.
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
        network: Needed when there is no source. Beside one it is trained in place of the network that the source
            states, and takes over what loading can bring across.
        spacing_mm, intensity: Null adopts the source's contract, or the fingerprint's where there is no source.
        patch_size_vox: Null derives it from the fingerprint and the source's size rule. May be smaller than the
            source's minimum (training costs less, the source is further from what it knows), not than the network's.
        max_patch_voxels: A derived patch has at most so many voxels; memory and time of a step follow it.
        accept_broken: Lines of the contract (``[field of view]``) that may be broken without the plan being refused.
            The modality is none of them.
        orientation_trial: So many training cases are given to the source as it is, read as its card says and mirrored:
            a card with left and right exchanged is found before anything is trained. 0 takes the card's word.
    """

    source: str | None
    network: NetworkConfig | None = Field(default=None, validate_default=True)
    spacing_mm: Spacing | None = None
    intensity: IntensityConfig | None = None
    patch_size_vox: tuple[Positive, Positive, Positive] | None = None
    max_patch_voxels: Positive = 262_144
    accept_broken: tuple[str, ...] = ()
    orientation_trial: Annotated[Whole, Field(le=50)] = 6

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


class PredictConfig(Section):
    """Windows over each test case.

    Attributes:
        overlap: Share of a window that the next one covers again; ``fast`` has its own where its windows are others.
        mode: ``exact`` passes the windows of MONAI's sliding-window inferer in float32. ``fast`` passes none that lies
            outside the body, and the cheapest windows and number format that kept exact mode's Dice on the model's
            validation cases; see docs/inference.md.
        memory_gib: What ``fast`` may take beside the image, GiB: the larger, the fewer windows. It is no measure of the
            machine, so that the same input gives the same bits everywhere.
        flips: Directions along which each window is passed mirrored too, all combinations of them, and the mean taken:
            ``LR`` is wrong where left and right are classes of their own.
        blending: Weights of a window's voxels where windows overlap: ``gaussian`` trusts the middle more.
        batch_size: Windows that go through the network at once.
        n_threads: CPU threads; results depend on it to the last bit.
        calibration: Also count how often the network is as right as it says, and fit a temperature, on validation cases
            alone, which costs one more prediction of each of them.
        disagreement: Where a prediction is the mean of several (models of several folds, else mirrored passes), also
            tell how far these disagree, case by case; in memory one more channel for each, beside ``memory_gib``.
    """

    overlap: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.5
    blending: Literal["gaussian", "constant"] = "gaussian"
    batch_size: Positive = 2
    n_threads: Positive = 2
    mode: Literal["exact", "fast"] = "exact"
    memory_gib: Annotated[Real, Field(gt=0.0)] = 1.5
    flips: tuple[Literal["LR", "AP", "SI"], ...] = ()
    calibration: bool = True
    disagreement: bool = True


class EvaluateConfig(Section):
    """Scores, intervals, the verdict.

    Attributes:
        surface_tolerance_mm: Largest surface distance counted as agreement.
        class_tolerances_mm: The same of classes that need another, by name: what two readers differ by is a matter of
            the organ.
        n_bootstrap: Resamples of the patients behind each interval.
        confidence: Of the intervals.
        seed: Of the resamples.
        null_margin: A difference whose whole interval lies within plus or minus this is called null for certain.
        source_set: Data set of the source's own task, in any layout that ingest reads, that neither training saw; then
            the report says what tuning cost there. Null measures nothing.
        source_classes: Its classes, of those the source has; null takes the card's names with their label values in
            order.
        lesions: Classes that are counted lesion by lesion too: sensitivity, false positives, F1, panoptic quality.
        groups: CSV table in the workspace with a column ``case`` (case ids), and columns to group the test cases by:
            ``age`` is banded, ``sex`` and others are taken as they are and stand in the report: no names. Null groups
            by what the images tell.
        data_licence, data_citation: Of the data set, for the report and the model card.
    """

    surface_tolerance_mm: Annotated[Real, Field(gt=0.0)] = 2.0
    class_tolerances_mm: dict[str, Annotated[Real, Field(gt=0.0)]] = Field(default_factory=dict)
    n_bootstrap: Annotated[Whole, Field(ge=200)] = 5000
    confidence: Annotated[Real, Field(gt=0.5, lt=1.0)] = 0.95
    null_margin: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.01
    seed: Whole = 0
    source_set: str | None = None
    source_classes: tuple[ClassSpec, ...] | None = Field(default=None, min_length=1, max_length=254)
    lesions: tuple[str, ...] = ()
    groups: str | None = None
    data_licence: str = ""
    data_citation: str = ""

    def tolerances_mm(self, names: Sequence[str]) -> tuple[float, ...]:
        """Of surface Dice, for each class."""
        return tuple(self.class_tolerances_mm.get(name, self.surface_tolerance_mm) for name in names)

    @property
    def tolerance_words(self) -> str:
        """E.g. ``2 mm`` or ``2 mm (tumour 1 mm)``."""
        others = ", ".join(f"{name} {value:g} mm" for name, value in sorted(self.class_tolerances_mm.items()))
        return f"{self.surface_tolerance_mm:g} mm" + (f" ({others})" if others else "")

    @field_validator("lesions")
    @classmethod
    def _are_given_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a class is given twice")
        return names

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
        series_description: Of the written series, as a PACS shows it.
        series_number: Of the written series.
        privacy_audit: What ``monai-tl audit-privacy`` wrote, ``reports/privacy.json``, for the model card; null: the
            card says that no attack was tried.
    """

    arm: Literal["best", "transfer", "scratch"] = "best"
    identity: Literal["pseudonymous", "source"] = "pseudonymous"
    series_description: str = Field(default="monai_tl segmentation", max_length=64)
    series_number: Annotated[Whole, Field(ge=1, le=9999)] = 9001
    privacy_audit: str | None = None


class Params(Section):
    """All of params.yaml: one section a stage, and ``serve``; ``curve`` and ``inbox`` only where there is one."""

    ingest: IngestConfig
    split: SplitConfig = SplitConfig()
    plan: PlanConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    curve: CurveConfig | None = None
    inbox: InboxConfig | None = None
    serve: ServeConfig = ServeConfig()


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
    if value("plan", "source") is not None and value("plan", "network") and value("evaluate", "source_set"):
        yield "evaluate.source_set: is given, but so is plan.network, in which no task is forgotten; leave one out"
    names = [one.get("name") for one in items("ingest", "classes") if isinstance(one, dict)]
    if names and (unknown := [one for one in items("evaluate", "lesions") if one not in names]):
        yield f"evaluate.lesions: {unknown[0]!r} is none of ingest.classes ({', '.join(map(str, names))})"
    tolerances = value("evaluate", "class_tolerances_mm")
    if names and isinstance(tolerances, dict) and (unknown := [one for one in tolerances if one not in names]):
        known = ", ".join(map(str, names))
        yield f"evaluate.class_tolerances_mm: {unknown[0]!r} is none of ingest.classes ({known})"
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
