"""What stages hand to each other, as typed records that are JSON on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from monai_tl.config import IntensityConfig, NetworkConfig
from monai_tl.contract_records import Adaptation as Adaptation
from monai_tl.contract_records import Shift as Shift
from monai_tl.contract_records import ShiftFeature as ShiftFeature
from monai_tl.errors import DataError
from monai_tl.files import read_json, write_json
from monai_tl.labels import LabelScheme
from monai_tl.size_rule import SizeRule as SizeRule

Triple = tuple[float, float, float]
IntTriple = tuple[int, int, int]
Matrix = tuple[tuple[float, float, float, float], ...]


class Record(BaseModel):
    """A frozen JSON record; nothing extra allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check.

        Raises:
            DataError: The file is missing, damaged, or of another version.
        """
        try:
            return cls.model_validate(read_json(path))
        except FileNotFoundError:
            raise DataError(f"{path} is missing; run the stage that makes it (monai-tl run)") from None
        except (ValueError, ValidationError) as error:
            raise DataError(
                f"{path} is no valid {cls.__name__}: {str(error).splitlines()[0]}; run its stage again"
            ) from None

    def write(self, path: Path) -> None:
        """Write whole, with a fixed layout."""
        write_json(path, self.model_dump(mode="json"))


UNKNOWN_SITE = "unknown"
"""Of a case whose input does not say where it was made; such cases may be of one site or of many."""


class Provenance(Record):
    """Where a case came from, without anything that identifies.

    Attributes:
        kind: ``dicom`` or ``nifti``.
        study, series, label_series: Keyed hashes of UIDs (of the relative path for NIfTI).
        instances: Keyed hashes of the source instances in slice order.
        input_sha256: Over the bytes of all source files in slice order, then the label's.
        image_sha256: Over shape and values of the stored image alone: the same for a copy under another name, with
            other headers, packing or label. No identifier goes into it, so none can be found by trying.
        scaling: e.g. ``rescale slope 1 intercept -1024``.
        scanner: Manufacturer, model, kernel, field strength … and nothing else.
        notes: What was done: duplicates dropped, gantry tilt resampled …
    """

    kind: Literal["dicom", "nifti"]
    study: str
    series: str
    label_series: str | None = None
    instances: tuple[str, ...] = ()
    input_sha256: str
    image_sha256: str
    scaling: str = ""
    scanner: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class CaseRecord(Record):
    """``case.json``: one image to segment.

    Attributes:
        case_id: Pseudonym, ``case-`` and 12 hex digits; also the folder's name.
        patient_key: Pseudonym of the patient, for splitting only.
        site: Short keyed hash of the institution's name; UNKNOWN_SITE where the input names none, as NIfTI does.
        spacing_mm, spatial_shape, affine: Of image.nii.gz; RAS+.
        class_voxels: Voxels of each class by name; empty without a label.
    """

    case_id: str
    patient_key: str
    site: str
    modality: str
    n_channels: int = 1
    has_label: bool
    spacing_mm: Triple
    spatial_shape: IntTriple
    affine: Matrix
    class_voxels: dict[str, int] = {}
    provenance: Provenance


class Rejection(Record):
    """One refused series or file, or one case that a stage could not use.

    Attributes:
        item: ``series-`` or ``file-`` with 12 hex digits of a keyed hash; or a case id.
        kind: What was refused.
        code: A stable short word.
        reason: One sentence: cause and numbers; nothing that identifies.
        n_files: Files concerned.
    """

    item: str
    kind: Literal["series", "file", "label", "case"]
    code: str
    reason: str
    n_files: int = 1


class RejectionList(Record):
    """``rejected.json`` of ingest, ``failed.json`` of preprocess."""

    rejected: tuple[Rejection, ...] = ()


def model_name(arm: str, fold: int, seed: int) -> str:
    """Folder of one training below ``artifacts/models``, as the table of stages names the output of finetune."""
    return f"{arm}-{fold}-{seed}"


def predictions_of(arm: str, seed: int) -> str:
    """Folder of the label maps of one arm and seed, below ``artifacts/predictions``."""
    return f"{arm}/seed-{seed}"


def read_refused(artifacts: Path) -> tuple[Rejection, ...]:
    """All that ingest refused and all cases that preprocess could not prepare.

    Raises:
        DataError: A list is missing or damaged.
    """
    lists = (artifacts / "cases/rejected.json", artifacts / "prepared/failed.json")
    return tuple(one for path in lists for one in RejectionList.read(path).rejected)


class Dataset(Record):
    """``dataset.json`` of the ingest stage: the cases and what their label values mean.

    Attributes:
        channels: What each channel holds, where the data set's description names all of them; else empty.
    """

    schema_version: Literal[1] = 1
    modality: str
    n_channels: int
    scheme: LabelScheme
    key_id: str
    case_ids: tuple[str, ...]
    channels: tuple[str, ...] = ()


class Fold(Record):
    """Case ids of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


class Split(Record):
    """``split.json``: labelled cases only; each patient on one side.

    Attributes:
        same_patient: Labelled cases of one patient, where there are several; None: written before this was told.
        notes: Cases that hold the same image under several patient keys.
    """

    schema_version: Literal[1] = 1
    test: tuple[str, ...]
    folds: tuple[Fold, ...]
    unlabelled: tuple[str, ...] = ()
    same_patient: tuple[tuple[str, ...], ...] | None = None
    notes: tuple[str, ...] = ()


class Fingerprint(Record):
    """``fingerprint.json``: the training cases in numbers (never the test cases).

    Attributes:
        extent_mm_median: Of the box that holds the body (voxels above the modality's threshold).
        foreground_share: Median share of the image that lies in this box.
        intensity: mean, std, p00_5, p99_5, min, max over foreground voxels of the training labels; ``body_``
            versions over all voxels.
        class_volumes_ml: Median volume of each class.
        channels: As ``Dataset`` has them.
        echo_time_ms: n, min, median, max over the cases whose DICOM header states one; empty where none does.
        image_mm_min, extent_mm_min: Smallest size of an image and of a body's box along each axis.
        scaled: The foreground after each case is scaled by itself, medians over the cases: ``zscore_mean`` and
            ``zscore_std`` (clipped to the case's percentiles 0.5 and 99.5, then z-scored), ``minmax_mean`` and
            ``minmax_std`` (case to 0..1); and ``n_squashed``: cases of which 99.5 % of the voxels lie in the lowest
            tenth between minimum and maximum.
    """

    # a card brings one from elsewhere
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_cases: int
    modality: str
    n_channels: int
    spacing_mm_median: Triple
    spacing_mm_min: Triple
    spacing_mm_max: Triple
    shape_median: IntTriple
    extent_mm_median: Triple
    foreground_share: float = 1.0
    intensity: dict[str, float]
    class_volumes_ml: dict[str, float]
    class_present: dict[str, int]
    channels: tuple[str, ...] = ()
    echo_time_ms: dict[str, float] = {}
    image_mm_min: Triple | None = None
    extent_mm_min: Triple | None = None
    scaled: dict[str, float] = {}


class Plan(Record):
    """``plan.json``: all that preprocessing, training and inference must know. Goes along with every model.

    Attributes:
        orientation: Axis codes of the network's input; arrays are stored so.
        foreground: ``above`` crops to the box of voxels above the threshold (stored values); ``none`` crops nothing.
        patch_size_vox: Training patch and inference window; fits ``size_rule``.
        source_sha256: Of the source's weights.
        adaptations: The source's contract line by line; empty without a source.
        shift: Distance to what the source was trained on; None without a source.
        notes: What the user should know besides.
    """

    schema_version: Literal[1] = 1
    modality: str
    n_channels: int
    scheme: LabelScheme
    orientation: str = "RAS"
    spacing_mm: Triple
    intensity: IntensityConfig
    foreground: Literal["none", "above"] = "none"
    foreground_threshold: float = 0.0
    size_rule: SizeRule = SizeRule()
    patch_size_vox: IntTriple
    network: NetworkConfig
    source: str | None
    source_sha256: str | None = None
    adaptations: tuple[Adaptation, ...] = ()
    shift: Shift | None = None
    notes: tuple[str, ...] = ()


class PreparedCase(Record):
    """``meta.json`` beside a preprocessed array: all that is needed to bring a prediction back.

    Attributes:
        native_affine, native_shape: The case's image.nii.gz grid (RAS+).
        crop_start, crop_stop: Box in the native grid, voxels.
        affine, spatial_shape: Of the stored array after reorientation and resampling.
    """

    case_id: str
    native_affine: Matrix
    native_shape: IntTriple
    crop_start: IntTriple
    crop_stop: IntTriple
    affine: Matrix
    spatial_shape: IntTriple
    has_label: bool
    class_voxels: tuple[int, ...] = ()


class TensorAudit(Record):
    """What became of one tensor of the network or of the source.

    Attributes:
        n_parameters: Its size; 0 for a buffer of the network.
        n_bytes: Its size in memory, bytes.
    """

    name: str
    group: str
    n_parameters: int
    n_bytes: int = 0
    status: Literal["matched", "adapted", "fresh", "unused"]
    detail: str = ""
    source_name: str = ""


def _as_pairs(mapping: dict[str, float]) -> list[tuple[str, float]]:
    # files have sorted keys, and the order of a mapping would be lost in them
    return list(mapping.items())


def _from_pairs(value: Any) -> Any:
    return dict(value) if isinstance(value, list) else value


class Audit(Record):
    """``audit.json``: weight loading, tensor by tensor.

    Attributes:
        share_body: Share of the body's parameters that came across (matched or adapted), 0 to 1.
        share_all: The same over the whole network.
        groups: Share by layer group, input to output; the last one is the head; pairs in the file.
        covers: Layer groups that the source holds; None for all. The others are fresh on purpose.
        share_covered: Share of the body's parameters in these groups that came across; None without ``covers``.
    """

    source: str | None
    source_sha256: str | None
    share_body: float
    share_all: float
    groups: Annotated[dict[str, float], BeforeValidator(_from_pairs), PlainSerializer(_as_pairs)]
    tensors: tuple[TensorAudit, ...]
    covers: tuple[str, ...] | None = None
    share_covered: float | None = None
    notes: tuple[str, ...] = ()
