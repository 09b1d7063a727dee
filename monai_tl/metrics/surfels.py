"""Surface elements of a voxel mask: how much surface lies in each 2 x 2 x 2 neighbourhood.

The table is that of DeepMind's surface-distance (Apache-2.0, https://github.com/google-deepmind/surface-distance):
marching cubes over the 256 neighbourhoods. Only the size of each triangle's normal matters here, not its sign, and a
neighbourhood and its complement have the same surface; so half of the table, without signs, says it all.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from monai_tl.geometry import BoolVolume, Spacing

# One word for each code 0 to 127; "/" parts its triangles; a triangle is |normal| along I, J, K in eighths of a face.
_TRIANGLES = """
- 111 111 220/220 111 202/202 111/111 400/222/111 111 111/111 202/202 400/222/111 220/220 400/222/111 400/222/111
400/400 111 022/022 111/111 040/222/111 111/111 004/222/111 111/111/111 111/222/222/111 111/111 022/022/111
202/202/111 111/333/022/202 111/220/220 333/022/111/220 400/111/222/111 400/111/222 111 111/111 022/022 040/111/222
111/111 111/202/202 022/022/111 333/022/111/202 111/111 111/111/111 004/222/111 222/222/111/111 111/220/220
400/222/111/111 022/333/111/220 400/222/111 220/220 040/222/111 040/111/222 040/040 220/220/111 333/202/111/220
111/040/222/111 040/222/111 111/220/220 040/222/111/111 333/220/111/202 040/222/111 220/220/220/220 220/220/111
111/220/220 220/220 111 111/111 111/111 111/220/220 022/022 004/222/111 022/022/111 333/022/111/220 111/111
111/111/111 111/202/202 400/222/111/111 040/222/111 222/222/111/111 202/333/022/111 400/222/111 202/202 004/222/111
111/202/202 202/333/220/111 004/222/111 004/004 111/111/222/004 111/222/004 202/202/111 004/222/111/111
202/202/202/202 111/202/202 202/333/220/111 004/222/111 111/202/202 202/202 111/111 111/111/111 111/022/022
040/111/222/111 022/022/111 004/222/111/111 022/022/022/022 022/022/111 111/111/111 111/111/111/111 004/222/111/111
111/111/111 040/222/111/111 111/111/111 022/022/111 111/111 400/222/111 222/111/222/111 333/022/111/202 040/222/111
333/220/022/111 111/222/004 111/022/022 022/022 400/222/111/111 111/111/111 202/202/111 111/111 220/220/111 111/111
111/111 111
""".split()  # noqa: SIM905 - a table reads better than 128 quoted words

N_CODES = 256


@lru_cache(maxsize=32)
def surfel_areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Area of the surface inside each neighbourhood.

    Args:
        spacing_mm: Voxel size along I, J, K, mm.

    Returns:
        (256,) square millimetres, indexed by the codes of ``neighbour_codes``; 0 for codes 0 and 255.
    """
    di, dj, dk = spacing_mm
    faces = np.array([dj * dk, di * dk, di * dj])
    areas = np.zeros(N_CODES)
    for code, word in enumerate(_TRIANGLES):
        if word != "-":
            normals = np.array([[int(digit) for digit in triangle] for triangle in word.split("/")]) / 8.0
            areas[code] = areas[N_CODES - 1 - code] = np.linalg.norm(normals * faces, axis=1).sum()
    areas.setflags(write=False)
    return areas


def neighbour_codes(mask: BoolVolume, margins: tuple[int, int, int] = (0, 0, 0)) -> NDArray[np.uint8]:
    """Code of the 2 x 2 x 2 neighbourhood around each voxel corner.

    Args:
        mask: (I, J, K) bool; outside it is background.
        margins: Corners of code 0 added on both sides along I, J, K.

    Returns:
        (I + 1, J + 1, K + 1) uint8, larger by twice the margins; without them corner (i, j, k) lies between voxels
        i - 1 and i, and so on. Neither 0 nor 255 means that the surface passes through.
    """
    inside = np.pad(mask, 1).view(np.uint8)
    # two neighbours along K, then four along K and J, then eight: three passes and not eight
    two = inside[:, :, :-1] << 1
    two |= inside[:, :, 1:]
    four = two[:, :-1] << 2
    four |= two[:, 1:]
    codes = np.zeros(tuple(n + 1 + 2 * margin for n, margin in zip(mask.shape, margins, strict=True)), dtype=np.uint8)
    window = codes[tuple(slice(margin, n + 1 + margin) for n, margin in zip(mask.shape, margins, strict=True))]
    np.left_shift(four[:-1], 4, out=window)
    window |= four[1:]
    return codes
