"""A case onto the plan's grid, and a prediction back onto the case's own.

Order: crop to foreground, reorient, clip, resample, scale. Voxel axes are permuted, flipped and resampled but never
rotated, so an oblique case stays oblique and the way back is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.config import PreprocessConfig
from monai_tl.dataset.intensity import check_varies, clip_limits, scale_intensity
from monai_tl.dataset.orientation import axes_and_flips, crop_affine, turn_affine, turn_array
from monai_tl.dataset.resampling import (
    AxisMatrix,
    antialias_sigma_vox,
    apply_axis_matrices,
    axis_matrix,
    resample_label,
    resampled_axis,
)
from monai_tl.dataset.restoring import restore_probabilities as restore_probabilities
from monai_tl.errors import DataError, GeometryError
from monai_tl.geometry import Affine, Shape, check_affine, orientation_of, spacing_of
from monai_tl.records import IntTriple, Matrix, Plan, PreparedCase

Image = NDArray[Any]
"""(I, J, K) for one channel, or (C, I, J, K)."""
Label = NDArray[np.uint8]
"""(I, J, K) uint8, 0 background."""

SAME_SPACING_MM = 1e-3
"""An axis whose spacing differs by no more is not resampled."""


def prepare_case(
    image: Image, affine: Affine, plan: Plan, config: PreprocessConfig, label: Label | None = None, case_id: str = ""
) -> tuple[NDArray[Any], Label | None, PreparedCase]:
    """Bring an image (and its label) onto the plan's grid and intensity scale.

    Downsampled axes are filtered first (see ``antialias_sigma_vox``); labels follow by the share of each class.

    Args:
        image: (I, J, K) or (C, I, J, K), stored values, as ingest keeps them (RAS+).
        affine: Voxel → RAS mm.
        plan: Says orientation, spacing (along the stored axes), intensity rule, foreground.
        config: Storage type and margin.
        label: (I, J, K) uint8 on the image's grid.
        case_id: Goes into the record.

    Returns:
        Image (C, I, J, K) of ``config.image_dtype``, label (I, J, K) uint8 or None, and what the way back needs;
        ``class_voxels`` counts the label's values 1..n on the new grid.

    Raises:
        GeometryError: Shapes or affine do not fit.
        DataError: Channels differ from the plan, a voxel is not finite, or the image is constant.
    """
    channels = image[np.newaxis] if image.ndim == 3 else image
    shape = _check_input(channels, affine, plan, label)
    start, stop = _foreground_box(channels, affine, plan, config)
    box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    axes, flips = axes_and_flips(orientation_of(affine), plan.orientation)
    turned_affine = turn_affine(crop_affine(affine, start), _shape3(channels[0][box].shape), axes, flips)
    matrices, new_affine, new_shape = _grid_matrices(turned_affine, _shape3([stop[a] - start[a] for a in axes]), plan)

    prepared = np.empty((len(channels), *new_shape), dtype=config.image_dtype)
    for index, channel in enumerate(channels):
        prepared[index] = _prepare_channel(turn_array(channel[box], axes, flips), plan, matrices)
    new_label = None
    if label is not None:
        new_label = np.ascontiguousarray(resample_label(turn_array(label[box], axes, flips), matrices))
    record = PreparedCase(
        case_id=case_id,
        native_affine=to_matrix(affine),
        native_shape=shape,
        crop_start=start,
        crop_stop=stop,
        affine=to_matrix(new_affine),
        spatial_shape=new_shape,
        has_label=label is not None,
        class_voxels=() if new_label is None else _count_classes(new_label, len(plan.scheme.classes)),
    )
    return prepared, new_label, record


def prepare_image(
    image: Image, affine: Affine, plan: Plan, config: PreprocessConfig, case_id: str = ""
) -> tuple[NDArray[Any], PreparedCase]:
    """``prepare_case`` for a new study: no label."""
    prepared, _, record = prepare_case(image, affine, plan, config, case_id=case_id)
    return prepared, record


def _check_input(channels: Image, affine: Affine, plan: Plan, label: Label | None) -> Shape:
    if channels.ndim != 4 or channels.size == 0:
        raise GeometryError(f"an image has 3 axes, or 4 with channels first; this one has shape {channels.shape}")
    check_affine(affine, "image")
    if len(channels) != plan.n_channels:
        raise DataError(
            f"the image has {len(channels)} channels, the plan {plan.n_channels}; plan and data do not belong together"
        )
    shape = _shape3(channels.shape[1:])
    if label is not None and label.shape != shape:
        raise GeometryError(f"the label's shape {label.shape} is not the image's {shape}; run ingest again")
    if not np.issubdtype(channels.dtype, np.integer) and not np.isfinite(channels).all():
        raise DataError("the image has voxels that are not finite; export it again")
    return shape


def _foreground_box(
    channels: Image, affine: Affine, plan: Plan, config: PreprocessConfig
) -> tuple[IntTriple, IntTriple]:
    """Box of voxels above the plan's threshold in any channel, plus the margin; the whole image when there are none."""
    shape = _shape3(channels.shape[1:])
    if plan.foreground == "none":
        return (0, 0, 0), shape
    above = np.zeros(shape, dtype=np.bool_)
    for channel in channels:
        above |= channel > plan.foreground_threshold
    start, stop = [0, 0, 0], list(shape)
    spacing = spacing_of(affine)
    for axis in range(3):
        found = np.flatnonzero(above.any(axis=tuple(other for other in range(3) if other != axis)))
        if found.size:
            margin = int(np.ceil(config.crop_margin_mm / spacing[axis]))
            start[axis] = max(0, int(found[0]) - margin)
            stop[axis] = min(shape[axis], int(found[-1]) + 1 + margin)
    return _shape3(start), _shape3(stop)


def _prepare_channel(channel: NDArray[Any], plan: Plan, matrices: list[AxisMatrix | None]) -> NDArray[np.float32]:
    values = np.asarray(channel, dtype=np.float32)
    limits = clip_limits(channel, plan.intensity)
    if limits is not None:
        values = np.clip(values, np.float32(limits[0]), np.float32(limits[1]))
    check_varies(values, plan.intensity)
    return scale_intensity(apply_axis_matrices(values, matrices), plan.intensity)


def _grid_matrices(affine: Affine, shape: Shape, plan: Plan) -> tuple[list[AxisMatrix | None], Affine, Shape]:
    """Matrices from a turned grid to the plan's spacing, and the new grid."""
    spacing = spacing_of(affine)
    matrices: list[AxisMatrix | None] = []
    new_affine, new_shape = np.array(affine, dtype=np.float64), list(shape)
    for axis, wanted in enumerate(plan.spacing_mm):
        if abs(spacing[axis] - wanted) <= SAME_SPACING_MM:
            matrices.append(None)
            continue
        n_out, positions = resampled_axis(shape[axis], spacing[axis], wanted)
        matrices.append(axis_matrix(positions, shape[axis], antialias_sigma_vox(wanted / spacing[axis])))
        new_affine[:3, 3] += affine[:3, axis] * positions[0]
        new_affine[:3, axis] = affine[:3, axis] * (wanted / spacing[axis])
        new_shape[axis] = n_out
    return matrices, new_affine, _shape3(new_shape)


def _count_classes(label: Label, n_classes: int) -> tuple[int, ...]:
    counts = np.bincount(label.reshape(-1), minlength=n_classes + 1)
    return tuple(int(count) for count in counts[1 : n_classes + 1])


def _shape3(values: Any) -> Shape:
    i, j, k = (int(value) for value in values)
    return i, j, k


def to_matrix(affine: Affine) -> Matrix:
    """An affine as nested tuples, as records keep it."""
    a, b, c, d = (tuple(float(value) for value in row) for row in np.asarray(affine))
    return a, b, c, d  # type: ignore[return-value]
