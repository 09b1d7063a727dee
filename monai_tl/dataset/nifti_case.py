"""One case of a NIfTI data set: image channels on one grid, and the label in the values of the scheme."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_tl.dataset.layouts import NiftiCase
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.errors import DataError, GeometryError, LabelError
from monai_tl.geometry import Affine, Volume, same_grid
from monai_tl.labels import LabelScheme


@dataclass(frozen=True)
class NiftiContent:
    """A case as read.

    Attributes:
        image: (I, J, K), or (C, I, J, K) with several channels; RAS+.
        affine: Voxel → RAS mm.
        label: (I, J, K) uint8 on the same grid; None without a usable label.
        notes: What was done.
        label_fault: Why the label was not used, as code and reason.
    """

    image: Volume
    affine: Affine
    label: Volume | None
    notes: tuple[str, ...] = ()
    label_fault: tuple[str, str] | None = None


def read_case(case: NiftiCase, scheme: LabelScheme) -> NiftiContent:
    """Read a case.

    Raises:
        DataError: A file is missing or damaged.
        GeometryError: Channels or label lie on other grids.
    """
    if case.missing:
        raise DataError(f"{case.missing} of the files listed for the case are missing; complete the data set")
    image, affine = _read_channels(case)
    if case.label is None:
        return NiftiContent(image, affine, None)
    raw, label_affine = read_label(case.label, image.shape[-3:])
    if not same_grid(affine, image.shape[-3:], label_affine, raw.shape):
        raise GeometryError(
            f"image {image.shape[-3:]} and label {raw.shape} lie on different grids; resample the label onto its image"
        )
    found = [int(value) for value in np.unique(raw)]
    values = scheme.value_map()
    foreground = [value for value in found if value != 0]
    if foreground and not any(value in values for value in foreground):
        reason = f"none of the label's {len(foreground)} values is one of the classes; list them in ingest.classes"
        return NiftiContent(image, affine, None, label_fault=("no_class", reason))
    label = np.zeros(raw.shape, dtype=np.uint8)
    for value in foreground:
        if value in values:
            label[raw == value] = values[value]
    n_other = sum(value not in values for value in foreground)
    notes = (f"{n_other} label values that are no class became background",) if n_other else ()
    return NiftiContent(image, affine, label, notes)


def _read_channels(case: NiftiCase) -> tuple[Volume, Affine]:
    image, affine = read_image(case.images[0])
    if len(case.images) == 1:
        return image, affine
    channels = [image]
    for path in case.images[1:]:
        other, other_affine = read_image(path)
        if not same_grid(affine, image.shape, other_affine, other.shape):
            raise GeometryError("the channels of a case lie on different grids; resample them onto the first")
        channels.append(other)
    if any(channel.ndim != 3 for channel in channels):
        raise LabelError("a channel file holds several channels itself; give one file a channel")
    return np.stack(channels), affine
