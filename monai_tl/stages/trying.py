"""The source as it is, tried on a few training cases before anything is trained."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import PredictConfig, PreprocessConfig
from monai_tl.dataset.manifest import Manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.dataset.transforms import prepare_case
from monai_tl.errors import DataError, MonaiTLError, describe_fault
from monai_tl.inference import Predictor, mirrored_axes
from monai_tl.networks.builders import differences
from monai_tl.networks.device import place_network, set_up_torch
from monai_tl.networks.windows import window_size
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, Plan
from monai_tl.sources.card import Source
from monai_tl.sources.grafting import source_network
from monai_tl.transfer.orientation_trial import FEWEST, READINGS, STATED, Trial, compare_readings, overlap_table
from monai_tl.transfer.planning import on_own_network

_THREADS = 2
"""As everywhere by default; what is said of a trial is rounded, so that it does not hang on the last bits."""
_MOST_VOXELS = 6 * 160**3
"""In the windows of all cases that are tried."""


def try_orientation(
    source: Source, manifest: Manifest, cases: Sequence[CaseRecord], n_cases: int, plan: Plan
) -> tuple[Trial | None, str]:
    """What the source finds in windows around the labels: read as its card says, and mirrored along each direction.

    Args:
        source: With classes of its own.
        manifest: Where the cases are.
        cases: Those for training; no others are looked at.
        n_cases: At most so many, of different patients; fewer where windows are large, but ``FEWEST``.
        plan: Under the source's contract.

    Returns:
        The trial; or None and why there is none.
    """
    card = source.card
    if card.output == "features" or card.covers:
        return None, "the source was trained for no classes"
    if card.network.n_channels != plan.n_channels:
        return None, f"the source takes {card.network.n_channels} channels, not {plan.n_channels}"
    if differences(plan.network, card.network.config):
        plan = on_own_network(source, plan)
    # a window of a whole head costs what a hundred small ones do, and the fewest that can tell must do
    affordable = max(FEWEST, _MOST_VOXELS // math.prod(plan.patch_size_vox))
    chosen = _choose(cases, min(n_cases, affordable))
    if not chosen:
        return None, "no training case has a label"
    progress = Progress("plan: the source as it is", total=len(chosen))
    try:
        network = place_network(source_network(source), set_up_torch(_THREADS))
    except MonaiTLError:
        # no error here: for training, part of the weights may do, and that is for the finetune stage to say
        return None, "its weights do not make its own network whole ('monai-tl sources check' says what is missing)"
    predictor = Predictor((network,), plan)
    tables: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    for case in chosen:
        try:
            image, label = _window(case, manifest, plan)
        except DataError as error:
            # such a case is listed by the preprocess stage
            progress.advance(f"{case.case_id} left out: {describe_fault(error)[1]}", is_warning=True)
            continue
        for reading, found in _readings(predictor, image):
            tables[reading].append(overlap_table(found, label, len(card.classes), len(plan.scheme.classes)))
        progress.advance(case.case_id)
    if not tables:
        return None, "no training case could be prepared"
    return compare_readings({reading: tables[reading] for reading in READINGS}, card.classes, plan.scheme.names), ""


def _choose(cases: Sequence[CaseRecord], n_cases: int) -> list[CaseRecord]:
    """One labelled case a patient, evenly over the list."""
    by_patient = {case.patient_key: case for case in reversed(cases) if any(case.class_voxels.values())}
    firsts = sorted(by_patient.values(), key=lambda case: case.case_id)
    n_chosen = min(n_cases, len(firsts))
    return [firsts[k * len(firsts) // n_chosen] for k in range(n_chosen)]


def _window(case: CaseRecord, manifest: Manifest, plan: Plan) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The plan's window, or what of it the case has, around the middle of the labelled voxels.

    Raises:
        DataError: The case cannot be prepared.
    """
    label_path: Path = manifest.label_path(case.case_id)
    image, affine = read_image(manifest.image_path(case.case_id))
    drawn = read_label(label_path)[0].astype(np.uint8, copy=False)
    # no margin or storage type of params.yaml: they decide nothing here, and the plan would hang on them
    prepared, label, _ = prepare_case(image, affine, plan, PreprocessConfig(), drawn, case.case_id)
    if label is None:
        raise DataError("a label was given and none came back")
    shape = label.shape
    window = window_size((shape[0], shape[1], shape[2]), plan.patch_size_vox, plan.size_rule)
    box = []
    for axis, (size, wanted) in enumerate(zip(shape, window, strict=True)):
        present = np.flatnonzero(label.any(axis=tuple(other for other in range(3) if other != axis)))
        middle = (int(present[0]) + int(present[-1]) + 1) // 2 if present.size else size // 2
        start = max(0, min(middle - wanted // 2, size - wanted))
        box.append(slice(start, min(size, start + wanted)))
    return prepared[(slice(None), *box)], label[tuple(box)]


def _readings(predictor: Predictor, image: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Reading → likeliest output of each voxel, on the image as it was given."""
    config = PredictConfig()
    for reading in READINGS:
        directions = () if reading == STATED else (reading,)
        axes = tuple(axis + 1 for axis in mirrored_axes(directions, predictor.plan.orientation))
        given = np.ascontiguousarray(np.flip(image, axes))
        found = np.empty(image.shape[1:], dtype=np.uint8)
        for slab in predictor.stream(given, config):
            place = [slice(None)] * 3
            place[slab.axis] = slice(slab.start, slab.start + slab.values.shape[slab.axis + 1])
            found[tuple(place)] = slab.values.argmax(axis=0)
        yield reading, np.flip(found, tuple(axis - 1 for axis in axes))
