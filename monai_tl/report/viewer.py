"""Cases to look through slice by slice: what brainsprite needs of them, as pictures within the page.

brainsprite comes with nilearn (extra ``viewer``); without it the page has its still pictures alone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_tl.geometry import Spacing, Volume

LabelMap = NDArray[np.uint8]
MAX_SIDE = 96
"""Voxels along a side: three cases of that size are some two megabytes."""
LAYERS = ("reference", "prediction", "both")
"""What may lie over the image; ``both`` shows where they agree and how they differ."""

_LIBRARY = ("nilearn", "_assets/js/brainsprite.min.js")
_TRANSPARENT, _REFERENCE, _PREDICTION, _AGREE, _OTHER = range(5)
# yellow, blue, sky blue and vermilion: over tissue of any grey each is told from the others and from the bare image, by
# any kind of colour vision
_COLOURS = ((0, 0, 0), (255, 225, 77), (0, 60, 200), (86, 180, 233), (213, 94, 0))
_ALPHA = (0, 180, 195, 125, 205)


@dataclass(frozen=True)
class SliceView:
    """One case for the viewer; the patient's right is left.

    Attributes:
        shape: Voxels along the patient's right to left, posterior to anterior, inferior to superior.
        step_mm: Their size, equal along all three.
        start: Slices shown first.
        image: Data URI of a PNG that holds all sagittal slices side by side.
        layers: Name of LAYERS → the same for what lies over it.
    """

    shape: tuple[int, int, int]
    step_mm: float
    start: tuple[int, int, int]
    image: str
    layers: dict[str, str]


@dataclass(frozen=True)
class Script:
    """A script of the page and the word by which its content security policy allows it, and no other."""

    text: str

    @property
    def allowed(self) -> str:
        """E.g. ``'sha256-...'``."""
        return f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode('ascii')}'"


def viewer_scripts() -> tuple[Script, ...]:
    """brainsprite and what binds it to the page; nothing without the extra ``viewer``."""
    package, path = _LIBRARY
    if find_spec(package) is None:
        return ()
    library = files(package).joinpath(path).read_text(encoding="utf-8")
    own = files("monai_tl.report").joinpath("viewer.js").read_text(encoding="utf-8")
    return tuple(Script(f"\n{text.strip()}\n") for text in (library, own))


def draw_slices(
    image: Volume,
    reference: LabelMap,
    prediction: LabelMap | None,
    spacing_mm: Spacing,
    centre_mm: Sequence[float],
    side_mm: float,
    window: tuple[float, float],
) -> SliceView:
    """Cut a cube out of a case and lay its slices out for the viewer.

    Args:
        image: (I, J, K) stored values, RAS+.
        reference: (I, J, K) uint8.
        prediction: Likewise; None where there is none.
        spacing_mm: Voxel size along I, J, K.
        centre_mm: Of the cube, mm from the volume's corner.
        side_mm: Of the cube.
        window: Values shown as black and white.
    """
    n = min(MAX_SIDE, max(8, math.ceil(side_mm / min(spacing_mm))))
    step = side_mm / n
    offset = [
        (middle - side_mm / 2 + step / 2) / size - 0.5 for middle, size in zip(centre_mm, spacing_mm, strict=True)
    ]
    scale = [step / size for size in spacing_mm]

    def sample(values: NDArray[Any], order: int, outside: float) -> NDArray[Any]:
        from scipy import ndimage

        found = ndimage.affine_transform(
            values, scale, offset=offset, output_shape=(n, n, n), order=order, mode="grid-constant", cval=outside,
            prefilter=False,
        )  # fmt: skip
        # the patient's right comes first, as a radiologist looks at it
        return np.asarray(found[::-1])

    low, high = window
    grey = np.clip((sample(image.astype(np.float32), 1, low) - low) / (high - low), 0.0, 1.0) * 255.0
    truth = sample(reference, 0, 0)
    found = np.zeros_like(truth) if prediction is None else sample(prediction, 0, 0)
    both = np.select(
        [(truth > 0) & (truth == found), (truth > 0) & (found > 0), truth > 0, found > 0],
        [_AGREE, _OTHER, _REFERENCE, _PREDICTION],
        _TRANSPARENT,
    )
    maps = {
        "reference": np.where(truth > 0, _REFERENCE, _TRANSPARENT),
        "prediction": np.where(found > 0, _PREDICTION, _TRANSPARENT),
        "both": both,
    }
    anchor = truth if truth.any() else found
    start = tuple(
        int(np.argmax(np.count_nonzero(anchor, axis=tuple(other for other in range(3) if other != axis))))
        if anchor.any()
        else n // 2
        for axis in range(3)
    )
    return SliceView(
        shape=(n, n, n),
        step_mm=step,
        start=(start[0], start[1], start[2]),
        image=_png(_sprite(grey.round().astype(np.uint8))),
        layers={name: _png(_sprite(values.astype(np.uint8)), is_layer=True) for name, values in maps.items()},
    )


def _sprite(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sagittal slices row by row, superior up, in as many rows as columns: brainsprite's layout."""
    n_slices, width, height = volume.shape
    n_rows = math.ceil(math.sqrt(n_slices))
    n_columns = math.ceil(n_slices / n_rows)
    sheet = np.zeros((n_rows * height, n_columns * width), dtype=np.uint8)
    for index, cut in enumerate(volume):
        row, column = divmod(index, n_columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = cut[:, ::-1].T
    return sheet


def _png(sheet: NDArray[np.uint8], is_layer: bool = False) -> str:
    from PIL import Image

    picture, options = Image.fromarray(sheet), {}
    if is_layer:
        picture = picture.convert("P")
        picture.putpalette([value for colour in _COLOURS for value in colour])
        options = {"transparency": bytes(_ALPHA)}
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
