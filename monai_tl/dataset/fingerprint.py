"""The training cases in numbers: what planning knows of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.dataset.case_scale import scale_case
from monai_tl.dataset.manifest import Manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.errors import DataError
from monai_tl.geometry import Affine, Shape, spacing_of
from monai_tl.labels import LabelScheme
from monai_tl.parallel import map_cases
from monai_tl.progress import Progress
from monai_tl.records import CaseRecord, Fingerprint, Triple

BODY_THRESHOLD_HU = -500.0
"""CT: between air (-1000) and fat (-100); lungs lie inside the box of the body."""
_SAMPLES_PER_CASE = 10_000
_CHUNK = 1 << 20


def foreground_threshold(modality: str) -> float:
    """Stored value above which a voxel may belong to the body: -500 HU for CT, else 0 (what lies outside a cut-out)."""
    return BODY_THRESHOLD_HU if modality == "CT" else 0.0


@dataclass(frozen=True)
class _Intensity:
    """Voxels of one case: exact sums, and evenly spaced samples."""

    n_voxels: int
    total: float
    total_squares: float
    low: float
    high: float
    samples: NDArray[np.float32]


@dataclass(frozen=True)
class _CasePrint:
    spacing_mm: Triple
    shape: Shape
    image_mm: Triple
    box_mm: Triple
    box_share: float
    foreground: _Intensity | None
    body: _Intensity
    scaled: dict[str, float]
    class_voxels: tuple[int, ...]


def fingerprint(cases: Sequence[CaseRecord], manifest: Manifest) -> Fingerprint:
    """Describe the training cases. Never give it a test case: the plan is fitted to what is seen here.

    One case a process is in memory. Mean, deviation and range are exact; percentiles come from 10,000 evenly spaced
    voxels a case, weighted by the voxels they stand for.

    Args:
        cases: Labelled training cases.
        manifest: Where they lie.

    Returns:
        Statistics with a fixed order of summation. ``extent_mm_median`` is of the box of voxels above
        ``foreground_threshold``, ``shape_median`` of the whole images. Volumes are medians over the cases that
        have the class. For several channels, intensities are of all channels together.

    Raises:
        DataError: There is no case, or one cannot be read.
    """
    ordered = sorted(cases, key=lambda case: case.case_id)
    if not ordered:
        raise DataError("there is no training case to describe; look at artifacts/split/split.json")
    progress = Progress("plan", total=len(ordered))
    prints: list[_CasePrint] = []
    # what goes along with each case must not be all of them
    describe = partial(_describe_case, manifest=replace(manifest, cases=()))
    for result in map_cases(describe, ordered):
        prints.append(result)
        progress.advance(ordered[len(prints) - 1].case_id)
    dataset = manifest.dataset
    kind = _Kind(dataset.modality, dataset.n_channels, dataset.scheme, dataset.channels)
    return _summarise_cases(prints, kind, _echo_times(ordered))


def fingerprint_of_volume(
    image: NDArray[Any], affine: Affine, label: NDArray[Any], modality: str, scheme: LabelScheme
) -> Fingerprint:
    """The fingerprint of one case that lies in no manifest, e.g. one whose label a network gave.

    Args:
        image: (I, J, K) or (C, I, J, K), stored values.
        affine: RAS+.
        label: (I, J, K) integer.
        modality: As in DICOM.
        scheme: What the label's values mean.
    """
    channels = image if image.ndim == 4 else image[np.newaxis]
    kind = _Kind(modality, channels.shape[0], scheme, ())
    return _summarise_cases([_describe(channels, affine, label, kind)], kind, {})


@dataclass(frozen=True)
class _Kind:
    """What all cases have in common."""

    modality: str
    n_channels: int
    scheme: LabelScheme
    channels: tuple[str, ...]


def _summarise_cases(prints: Sequence[_CasePrint], kind: _Kind, echo_time_ms: dict[str, float]) -> Fingerprint:
    spacings = np.array([item.spacing_mm for item in prints])
    foreground = [item.foreground for item in prints if item.foreground is not None]
    body = _statistics([item.body for item in prints])
    names = kind.scheme.names
    return Fingerprint(
        n_cases=len(prints),
        modality=kind.modality,
        n_channels=kind.n_channels,
        spacing_mm_median=_triple(np.median(spacings, axis=0)),
        spacing_mm_min=_triple(spacings.min(axis=0)),
        spacing_mm_max=_triple(spacings.max(axis=0)),
        shape_median=_shape(np.median([item.shape for item in prints], axis=0)),
        extent_mm_median=_triple(np.median([item.box_mm for item in prints], axis=0)),
        foreground_share=_rounded(float(np.median([item.box_share for item in prints]))),
        intensity={**(_statistics(foreground) if foreground else body), **{f"body_{k}": v for k, v in body.items()}},
        class_volumes_ml={name: _median_volume_ml(prints, index) for index, name in enumerate(names)},
        class_present={name: sum(item.class_voxels[index] > 0 for item in prints) for index, name in enumerate(names)},
        channels=kind.channels,
        echo_time_ms=echo_time_ms,
        image_mm_min=_triple(np.min([item.image_mm for item in prints], axis=0)),
        extent_mm_min=_triple(np.min([item.box_mm for item in prints], axis=0)),
        scaled=_scaled(prints),
    )


def _describe_case(case: CaseRecord, manifest: Manifest) -> _CasePrint:
    image, affine = read_image(manifest.image_path(case.case_id))
    label, _ = read_label(manifest.label_path(case.case_id))
    dataset = manifest.dataset
    kind = _Kind(dataset.modality, dataset.n_channels, dataset.scheme, dataset.channels)
    return _describe(image if image.ndim == 4 else image[np.newaxis], affine, label, kind)


def _describe(channels: NDArray[Any], affine: Affine, label: NDArray[Any], kind: _Kind) -> _CasePrint:
    threshold = foreground_threshold(kind.modality)
    spacing = spacing_of(affine)
    shape = _shape(channels.shape[1:])
    box = _box_shape(np.max(channels, axis=0) > threshold)
    inside = label > 0
    return _CasePrint(
        spacing_mm=spacing,
        shape=shape,
        image_mm=_triple([size * step for size, step in zip(shape, spacing, strict=True)]),
        box_mm=_triple([size * step for size, step in zip(box, spacing, strict=True)]),
        box_share=float(np.prod(box) / np.prod(shape)),
        foreground=_summarise(channels[:, inside].reshape(-1)) if inside.any() else None,
        body=_summarise(channels.reshape(-1)),
        scaled=scale_case(channels, inside),
        class_voxels=_class_voxels(label, kind.scheme),
    )


def _box_shape(mask: NDArray[np.bool_]) -> Shape:
    """Size of the box of true voxels; the whole array when there are none."""
    sizes = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        sizes.append(int(found[-1] - found[0]) + 1 if found.size else mask.shape[axis])
    return _shape(sizes)


def _class_voxels(label: NDArray[Any], scheme: LabelScheme) -> tuple[int, ...]:
    counts = np.bincount(label.reshape(-1).astype(np.uint8), minlength=scheme.n_outputs)
    return tuple(int(count) for count in counts[1 : scheme.n_outputs])


def _summarise(values: NDArray[Any]) -> _Intensity:
    places = np.linspace(0, values.size - 1, min(values.size, _SAMPLES_PER_CASE)).astype(np.int64)
    sums = []
    for start in range(0, values.size, _CHUNK):
        wide = values[start : start + _CHUNK].astype(np.float64)
        sums.append((float(wide.sum()), float((wide * wide).sum())))
    return _Intensity(
        n_voxels=int(values.size),
        total=math.fsum(total for total, _ in sums),
        total_squares=math.fsum(squares for _, squares in sums),
        low=float(values.min()),
        high=float(values.max()),
        samples=values[places].astype(np.float32),
    )


def _statistics(parts: Sequence[_Intensity]) -> dict[str, float]:
    n_voxels = sum(part.n_voxels for part in parts)
    mean = sum(part.total for part in parts) / n_voxels
    variance = max(sum(part.total_squares for part in parts) / n_voxels - mean * mean, 0.0)
    samples = np.concatenate([part.samples for part in parts])
    weights = np.concatenate([np.full(part.samples.size, part.n_voxels / part.samples.size) for part in parts])
    low, high = _weighted_percentiles(samples, weights, (0.5, 99.5))
    values = {
        "mean": mean,
        "std": float(np.sqrt(variance)),
        "p00_5": low,
        "p99_5": high,
        "min": min(part.low for part in parts),
        "max": max(part.high for part in parts),
    }
    return {name: _rounded(value) for name, value in values.items()}


def _weighted_percentiles(
    samples: NDArray[np.float32], weights: NDArray[np.float64], percentiles: Sequence[float]
) -> list[float]:
    """Smallest samples at or below which at least so many per cent of the weight lie."""
    order = np.argsort(samples, kind="stable")
    shares = np.cumsum(weights[order])
    places = [int(np.searchsorted(shares, percentile / 100.0 * shares[-1])) for percentile in percentiles]
    return [float(samples[order[min(place, samples.size - 1)]]) for place in places]


def _scaled(prints: Sequence[_CasePrint]) -> dict[str, float]:
    """Medians over the cases that have the number; ``n_squashed`` is their count."""
    names = sorted({name for item in prints for name in item.scaled if name != "squashed"})
    values = {
        name: _rounded(float(np.median([item.scaled[name] for item in prints if name in item.scaled])))
        for name in names
    }
    return {**values, "n_squashed": sum(item.scaled.get("squashed", 0.0) for item in prints)}


def _echo_times(cases: Sequence[CaseRecord]) -> dict[str, float]:
    stated = [case.provenance.scanner.get("EchoTime", "") for case in cases if case.modality == "MR"]
    times = sorted(float(text) for text in stated if text)
    if not times:
        return {}
    return {"n": len(times), "min": times[0], "median": float(np.median(times)), "max": times[-1]}


def _median_volume_ml(prints: Sequence[_CasePrint], index: int) -> float:
    """Median over the cases that have the class; 0 when none has."""
    volumes = [
        item.class_voxels[index] * float(np.prod(item.spacing_mm)) / 1000.0
        for item in prints
        if item.class_voxels[index]
    ]
    return _rounded(float(np.median(volumes))) if volumes else 0.0


def _rounded(value: float) -> float:
    """Six significant digits: below that lies the order of summation of one numpy build or another."""
    return float(f"{value:.6g}")


def _triple(values: Any) -> Triple:
    i, j, k = (_rounded(float(value)) for value in values)
    return i, j, k


def _shape(values: Any) -> Shape:
    i, j, k = (round(float(value)) for value in values)
    return i, j, k
