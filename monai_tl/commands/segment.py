"""``monai-tl segment``: a model on new studies; DICOM SEG and NIfTI out, and a list of what was refused and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from monai_tl import DEFAULT_KEY_FILE, __version__
from monai_tl.certainty_records import CERTAINTY_FILE, CaseCertainty, ModelCertainty
from monai_tl.config import ExportConfig, PredictConfig
from monai_tl.dataset.nifti import write_image
from monai_tl.dataset.transforms import prepare_image
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.segmentation import Algorithm, write_segmentation
from monai_tl.dicom.volume import DicomVolume, labels_to_source, read_volume, to_ras
from monai_tl.errors import ConfigError, ContractError, DataError, DicomError, describe_fault
from monai_tl.files import sha256_of, sweep_abandoned, whole_folder, write_json
from monai_tl.geometry import Affine, spacing_of
from monai_tl.inference import LOSSY, Predictor, load_models, with_engine
from monai_tl.integrity import check_if_sealed
from monai_tl.metrics.counting import CaseCounting
from monai_tl.progress import Progress
from monai_tl.records import Fingerprint, Rejection, RejectionList
from monai_tl.sources.card import read_source
from monai_tl.sources.ensemble import InferenceSettings, read_ensemble

Identity = Literal["pseudonymous", "source"]
SEGMENTATION_FILE, LABEL_FILE, REJECTED_FILE = "segmentation.dcm", "segmentation.nii.gz", "rejected.json"
METHOD_FILE = "method.json"
"""How the labels came about: mode, engine, number format and why, versions."""


@dataclass(frozen=True)
class LoadedModel:
    """Networks ready to be applied to any number of folders.

    Attributes:
        predictor: The networks, their plan and engine.
        algorithm: What a SEG says of its maker.
        settings: How they are applied.
        note: For the user, where the settings are the defaults; may be empty.
        fingerprint: Of the cases they were trained on; None where the card does not say.
        certainty: Of the test cases of their run; None where that is not known.
    """

    predictor: Predictor
    algorithm: Algorithm
    settings: InferenceSettings
    note: str
    fingerprint: Fingerprint | None
    certainty: ModelCertainty | None = None


@dataclass(frozen=True)
class Target:
    """Where results go and whose names they bear.

    Attributes:
        out: Exists.
        hasher: Of the project's key.
        identity: See ``run``.
    """

    out: Path
    hasher: Pseudonyms
    identity: Identity


@dataclass(frozen=True)
class Segmented:
    """What became of a folder.

    Attributes:
        lines: One a case, with the volume of each class.
        rejected: What was refused and why, in a fixed order.
        n_series: Image series that were found.
    """

    lines: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    n_series: int


def run(
    dicom_dir: Path,
    out: Path,
    model: Sequence[Path],
    identity: str = "source",
    key_file: Path = Path(DEFAULT_KEY_FILE),
    mode: str = "fast",
    engine: str = "torch",
    flips: Sequence[str] = (),
) -> str:
    """Segment every image series below a folder.

    A series that cannot be used goes to ``OUT/rejected.json`` with its reason; the others go on. Each result is a
    folder ``OUT/<case_id>/`` with ``segmentation.dcm`` and ``segmentation.nii.gz`` (uint8, RAS+, on the image's grid).

    ``OUT/method.json`` says how: mode, engine, number format and why. With a model that ``export`` wrote
    (``artifacts/export/model``) and the mode ``exact`` the labels are those of the run it was judged in.

    Args:
        dicom_dir: Any nesting.
        out: Made if missing; results of the same series are replaced.
        model: What ``export`` wrote, or model folders of one run, which record no settings and are applied with the
            defaults; probabilities are averaged.
        identity: ``source`` keeps the patient's identity in the SEG, so that a PACS takes it; ``pseudonymous`` does
            not.
        key_file: Secret behind pseudonyms and derived UIDs.
        mode: ``fast``; ``exact`` takes the windows of MONAI's inferer in float32; see docs/inference.md.
        engine: ``torch``; ``onnx`` runs the networks by ONNX Runtime; ``fastest`` times both on one window.
        flips: Directions ``LR``, ``AP``, ``SI`` along which windows are passed mirrored too; none takes the model's.

    Returns:
        One line a case with the volume of each class, a count, and a note where the settings are the defaults.

    Raises:
        ConfigError: No such identity, folder of studies, mode, engine or direction; or the engine is not installed.
        DataError: Nothing could be segmented; rejected.json says why. Or the model was changed since it was sealed.
        PrivacyError: The key is missing or readable by others.
        SourceError: A model cannot be loaded, or takes more than one channel.
        OSError: The results cannot be written.
    """
    if identity not in ("source", "pseudonymous"):
        raise ConfigError(f"--identity: {identity!r} is neither 'source' nor 'pseudonymous'", "arguments")
    if not dicom_dir.is_dir():
        raise ConfigError("DICOM_DIR: there is no such folder; give the one that holds the studies", "arguments")
    hasher = Pseudonyms(load_key(key_file))
    loaded = load_model(model, mode, engine, flips)
    # before the work, so that a place that cannot be written costs nobody an hour
    out.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(out, "case-*")
    done = segment_folder(dicom_dir, loaded, Target(out, hasher, cast("Identity", identity)))
    if not done.lines:
        found = f"none of {done.n_series} image series could be segmented" if done.n_series else (
            "no DICOM image was found in the folder given"
        )  # fmt: skip
        raise DataError(f"{found}; {out / REJECTED_FILE} lists {len(done.rejected)} refused items with their reasons")
    count = f"{len(done.lines)} of {done.n_series} series segmented, {len(done.rejected)} items refused, in {out}"
    return "\n".join([*done.lines, count, *filter(None, [loaded.note])])


def segment_folder(
    dicom_dir: Path, loaded: LoadedModel, target: Target, watch: Callable[[Found], None] | None = None
) -> Segmented:
    """Segment every image series below a folder; write the results, rejected.json and method.json.

    Args:
        dicom_dir: Any nesting.
        loaded: Of ``load_model``.
        target: Where the results go.
        watch: Told of each case after it was written, with how sure the model is of it.

    Raises:
        OSError: The results cannot be written.
    """
    index = index_folder(dicom_dir, target.hasher)
    progress = Progress("segment", total=len(index.series))
    lines: list[str] = []
    # labels that came along are of no concern here
    rejected = [item for item in index.rejected if item.kind != "label"]
    for series in index.series:
        try:
            found = _segment_series(series, loaded, target, watch is not None)
            line = _write(found, loaded, target)
        except Exception as error:
            rejection = _reject(series, target.hasher, error)
            rejected.append(rejection)
            progress.advance(f"{rejection.item} refused: {rejection.code}", is_warning=True)
            continue
        if watch is not None:
            watch(found)
        lines.append(line)
        progress.advance(line)
    in_order = tuple(sorted(rejected, key=lambda item: (item.kind, item.code, item.item)))
    RejectionList(rejected=in_order).write(target.out / REJECTED_FILE)
    write_json(target.out / METHOD_FILE, loaded.predictor.describe(loaded.settings.predict))
    return Segmented(tuple(sorted(lines)), in_order, len(index.series))


@dataclass(frozen=True)
class _Wanted:
    """What the command line asks of inference, as it was given."""

    mode: str
    engine: str
    flips: tuple[str, ...]

    def applied_to(self, predict: PredictConfig) -> PredictConfig:
        given = predict.model_dump() | {"mode": self.mode} | ({"flips": self.flips} if self.flips else {})
        try:
            return PredictConfig.model_validate(given)
        except ValidationError:
            asked = " ".join([f"--mode {self.mode}", *(f"--flip {flip}" for flip in self.flips)])
            raise ConfigError(f"{asked}: a mode is exact or fast, a flip is LR, AP or SI", "arguments") from None


def load_model(
    given: Sequence[Path], mode: str = "fast", engine: str = "torch", flips: Sequence[str] = ()
) -> LoadedModel:
    """Load what ``run`` is given as model; see there.

    Raises:
        DataError: Code ``integrity``: it is not as its manifest has it; one without a manifest is taken as it is.
        ConfigError: No such mode, engine or direction; or the engine is not installed.
        SourceError: A model cannot be loaded, or takes more than one channel.
    """
    wanted = _Wanted(mode, engine, tuple(flips))
    for folder in given:
        check_if_sealed(folder)
    ensemble = read_ensemble(given)
    folders, settings, note = ensemble.folders, ensemble.settings, ""
    if settings is None:
        settings = InferenceSettings()
        note = (
            "Applied with the default settings, since the model records none; artifacts/export/model of its run "
            "records those it was judged with."
        )
    settings = settings.model_copy(update={"predict": wanted.applied_to(settings.predict)})
    n_threads = settings.predict.n_threads
    predictor = with_engine(load_models(folders, n_threads), wanted.engine, n_threads)
    if predictor.settled(settings.predict) != settings.predict:
        note = f"{note} Segmented in exact mode: {LOSSY}.".strip()
    if predictor.plan.n_channels != 1:
        raise ContractError(
            f"the model takes {predictor.plan.n_channels} channels, a DICOM series has one; use a model of one channel"
        )
    cards = [read_source(folder).card for folder in folders]
    hashes = [card.weights.sha256 for card in cards]
    name = cards[0].name if len(cards) == 1 else f"{cards[0].name} and {len(cards) - 1} more"
    digest = hashes[0] if len(hashes) == 1 else sha256_of(*hashes)
    algorithm = Algorithm(name=f"monai_tl {name}", version=__version__, model_sha256=digest)
    return LoadedModel(predictor, algorithm, settings, note, cards[0].fingerprint, _certainty(given))


def _certainty(given: Sequence[Path]) -> ModelCertainty | None:
    path = given[0] / CERTAINTY_FILE
    return ModelCertainty.read(path) if len(given) == 1 and path.is_file() else None


@dataclass(frozen=True)
class Found:
    """What a model says of a series: ``label`` is uint8 (I, J, K) on the grid of ``affine`` (RAS+).

    ``certainty`` is None where nobody has asked for it.
    """

    case_id: str
    volume: DicomVolume
    label: NDArray[np.uint8]
    affine: Affine
    certainty: CaseCertainty | None = None


def _segment_series(series: ImageSeries, model: LoadedModel, target: Target, counts: bool) -> Found:
    plan, settings = model.predictor.plan, model.settings
    try:
        volume = read_volume(series, settings.min_slices)
    except OSError as error:
        raise DicomError(f"a file of the series cannot be read: {error.strerror}", "unreadable") from None
    if volume.modality != plan.modality:
        raise DicomError(f"the series is {volume.modality}, the model is for {plan.modality}", "other_modality")
    case_id = target.hasher.case_id(series.study_uid, series.name)
    image, exact = to_ras(volume)
    # as it would be read back from the case's NIfTI file, which keeps single precision: the pipeline's own bits
    affine = exact.astype(np.float32).astype(np.float64)
    prepared, record = prepare_image(image, affine, plan, settings.preprocess, case_id)
    # while the networks run, the prepared copy is enough
    del image
    counting = CaseCounting(None) if counts else None
    label = model.predictor.predict_label(prepared, record, settings.predict, counting)
    return Found(case_id, volume, label, affine, None if counting is None else counting.record())


def _write(found: Found, model: LoadedModel, target: Target) -> str:
    with whole_folder(target.out / found.case_id) as folder:
        write_image(folder / LABEL_FILE, found.label, found.affine)
        blank = _write_seg(folder / SEGMENTATION_FILE, found.label, found.volume, found.case_id, model, target)
    remark = f" (left blank in the SEG, being invalid in the source: {', '.join(blank)})" if blank else ""
    return f"{found.case_id}: {_describe_volumes(found.label, found.affine, model.predictor.plan.scheme.names)}{remark}"


def _write_seg(
    path: Path, label: NDArray[np.uint8], volume: DicomVolume, case_id: str, model: LoadedModel, target: Target
) -> tuple[str, ...]:
    defaults = ExportConfig()
    return write_segmentation(
        path,
        labels_to_source(label, volume),
        volume.geometry,
        model.predictor.plan.scheme,
        identity=target.identity,
        pseudonym=case_id,
        uid_key=target.hasher.uid,
        algorithm=model.algorithm,
        series_description=defaults.series_description,
        series_number=defaults.series_number,
        read_back=True,
    )


def _describe_volumes(label: NDArray[np.uint8], affine: Affine, names: Sequence[str]) -> str:
    voxel_ml = float(np.prod(spacing_of(affine))) / 1000.0
    counts = np.bincount(label.reshape(-1), minlength=len(names) + 1)
    return ", ".join(f"{name} {counts[value] * voxel_ml:.1f} ml" for value, name in enumerate(names, start=1))


def _reject(series: ImageSeries, hasher: Pseudonyms, error: Exception) -> Rejection:
    code, reason = describe_fault(error)
    item = hasher.item("series", series.name)
    return Rejection(item=item, kind="series", code=code, reason=reason, n_files=len(series.paths))
