"""Stage 1: studies in, cases out. After this stage nothing names a patient."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monai_tl.cache import tidy_cache
from monai_tl.config import IngestConfig, Params
from monai_tl.dataset.layouts import NiftiDataset, layout_of, read_decathlon, read_nnunet
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.index import index_folder
from monai_tl.errors import DataError
from monai_tl.files import code_digest, whole_folder
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, Dataset, Rejection, RejectionList
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.ingest_case import (
    CaseOutcome,
    DicomTask,
    NiftiTask,
    Workplace,
    ingest_nifti,
    ingest_series,
    lose_nifti,
    lose_series,
)

CASES_FOLDER = "artifacts/cases"
REJECTED_FILE = "rejected.json"
_CODE = (
    "dicom", "dataset.nifti", "dataset.nifti_case", "dataset.layouts", "geometry", "labels", "records",
    "stages.ingest_case",
)  # fmt: skip
# no image to segment, so no fault of the data
_NO_VOLUME = frozenset(("localizer", "secondary_capture", "other_modality", "other_channels"))


@dataclass(frozen=True)
class IngestSummary:
    """What a run of the stage did."""

    dataset: Dataset
    rejected: tuple[Rejection, ...]
    n_from_cache: int


def run(workspace: Path, params: Params) -> None:
    """Do the stage in a workspace."""
    config = params.ingest
    source = source_folder(workspace, config)
    key = load_key(Path(config.key_file))
    cache_root = workspace / STATE_FOLDER / "cache"
    ingest(source, workspace / CASES_FOLDER, config, key, cache_root, Progress("ingest"))


def source_folder(workspace: Path, config: IngestConfig) -> Path:
    """The folder that the cases come from."""
    return workspace / config.source


def read_listed(source: Path, config: IngestConfig) -> NiftiDataset | None:
    """The cases of a data set of NIfTI files; None for a folder of DICOM.

    Raises:
        DataError: The folder is missing, or its description is damaged or lists nothing.
    """
    if not source.is_dir():
        raise DataError(f"there is no folder {source}; check ingest.source in params.yaml")
    layout = config.layout if config.layout != "auto" else layout_of(source) or "dicom"
    if layout == "dicom":
        return None
    listed = read_decathlon(source) if layout == "decathlon" else read_nnunet(source)
    if not listed.cases:
        raise DataError("the data set lists no cases; check imagesTr and dataset.json")
    return listed


def ingest(
    source: Path, out: Path, config: IngestConfig, key: bytes, cache_root: Path, progress: Progress
) -> IngestSummary:
    """Turn a folder of DICOM, or of NIfTI in a known layout, into cases.

    One bad series never stops the others: it goes to rejected.json with its reason. Work on a case that was done
    before, with the same bytes, parameters, code and key, comes from the cache.

    Args:
        source: The folder.
        out: Made whole or not at all: dataset.json, rejected.json and a folder a case. When it is not made because too
            much is refused, rejected.json lies beside the cache, so that the reasons are not lost.
        config: The ingest section.
        key: Secret behind the pseudonyms.
        cache_root: Folder of the case cache.
        progress: Told of each case.

    Raises:
        DataError: No case is left, or more than ``max_rejected_fraction`` of the image series is refused.
        PrivacyError: The key is too short.
    """
    # what an earlier run left there is no longer true
    (cache_root.parent / REJECTED_FILE).unlink(missing_ok=True)
    listed = read_listed(source, config)
    hasher = Pseudonyms(key)
    with tidy_cache(cache_root), whole_folder(out) as folder:
        place = Workplace(config, key, cache_root, folder, code_digest(*_CODE))
        rejected: list[Rejection] = []
        if listed is None:
            index = index_folder(source, hasher)
            rejected += index.rejected
            progress.begin(len(index.series))
            series_tasks = [DicomTask(place, series) for series in index.series]
            outcomes = map_cases(ingest_series, series_tasks, finished=partial(_tell, progress), lost=lose_series)
        else:
            progress.begin(len(listed.cases))
            tasks = [NiftiTask(place, case, listed.modality, listed.name) for case in listed.cases]
            outcomes = map_cases(ingest_nifti, tasks, finished=partial(_tell, progress), lost=lose_nifti)
        cases, refused, n_from_cache = _collect(outcomes)
        rejected += refused
        cases, others = _keep_majority(cases, folder)
        rejected += others
        in_order = tuple(sorted(rejected, key=lambda one: (one.kind, one.code, one.item)))
        _check_share(cases, in_order, config, cache_root.parent / REJECTED_FILE)
        ordered = sorted(cases, key=lambda case: case.case_id)
        named = () if listed is None else listed.channels
        dataset = Dataset(
            modality=ordered[0].modality,
            n_channels=ordered[0].n_channels,
            scheme=config.scheme,
            key_id=hasher.key_id,
            case_ids=tuple(case.case_id for case in ordered),
            channels=named if len(named) == ordered[0].n_channels else (),
        )
        dataset.write(folder / "dataset.json")
        RejectionList(rejected=in_order).write(folder / REJECTED_FILE)
    progress.show(f"{len(ordered)} cases, {len(in_order)} rejected, {n_from_cache} from cache")
    return IngestSummary(dataset, in_order, n_from_cache)


def _tell(progress: Progress, task: DicomTask | NiftiTask, outcome: CaseOutcome) -> None:
    note = outcome.case.case_id if outcome.case else f"refused: {outcome.rejected[0].code}"
    progress.advance(note, is_warning=outcome.case is None)


def _collect(outcomes: Iterable[CaseOutcome]) -> tuple[list[CaseRecord], list[Rejection], int]:
    cases: list[CaseRecord] = []
    rejected: list[Rejection] = []
    n_from_cache = 0
    for outcome in outcomes:
        rejected += outcome.rejected
        if outcome.case is not None:
            cases.append(outcome.case)
            n_from_cache += outcome.from_cache
    return cases, rejected, n_from_cache


def _keep_majority(cases: Sequence[CaseRecord], folder: Path) -> tuple[list[CaseRecord], list[Rejection]]:
    """A data set has one modality and one number of channels: that of most cases."""
    if not cases:
        return [], []
    counts = Counter((case.modality, case.n_channels) for case in cases)
    modality, n_channels = min(counts, key=lambda kind: (-counts[kind], kind))
    kept: list[CaseRecord] = []
    rejected: list[Rejection] = []
    for case in cases:
        if (case.modality, case.n_channels) == (modality, n_channels):
            kept.append(case)
            continue
        shutil.rmtree(folder / case.case_id)
        is_other = case.modality != modality
        reason = (
            f"modality {case.modality}, while most of the data set is {modality}; ingest it on its own"
            if is_other
            else f"{case.n_channels} channels, while most cases have {n_channels}; ingest it on its own"
        )
        rejected.append(
            Rejection(
                # as hasher.item("series", …) of the series' UID would give
                item=f"series-{case.provenance.series[:12]}",
                kind="series",
                code="other_modality" if is_other else "other_channels",
                reason=reason,
                n_files=max(1, len(case.provenance.instances)),
            )
        )
    return kept, rejected


def _check_share(
    cases: Sequence[CaseRecord], rejected: Sequence[Rejection], config: IngestConfig, reasons: Path
) -> None:
    """Refuse to go on with too little, and then leave the reasons where they outlive the output that is not made."""
    refused = [one for one in rejected if one.kind in ("series", "case") and one.code not in _NO_VOLUME]
    n_images = len(cases) + len(refused)
    if cases and len(refused) <= config.max_rejected_fraction * n_images:
        return
    if not rejected:
        raise DataError(
            f"no DICOM file was found in {config.source}, where ingest.source of params.yaml points; put the studies "
            "there or point it to them"
        )
    RejectionList(rejected=tuple(rejected)).write(reasons)
    codes = Counter(one.code for one in rejected)
    listed = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    where = f"each reason is in {reasons}, and 'monai-tl whois ITEM' tells which files an item is"
    if not cases:
        raise DataError(f"no case is left of {config.source}, where ingest.source points ({listed}); {where}")
    raise DataError(
        f"{len(refused)} of {n_images} image series are refused ({listed}), more than ingest.max_rejected_fraction "
        f"{config.max_rejected_fraction:g} allows; mend the input or raise the limit; {where}"
    )
