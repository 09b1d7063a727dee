"""One synthetic patient as parts of simple shape: what ``monai_tl.dataset.phantom`` samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]


class IntegerDraws:
    """Uniform integers from the raw 64-bit stream of PCG64.

    Args:
        key: Numbers that choose the stream; equal keys, equal draws.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(key)))

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + ((int(self._bits.random_raw()) >> 32) * (high - low + 1) >> 32)

    def noise(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Near-normal integers, mean 0, standard deviation 209 (the sum of eight bytes, centred)."""
        count = int(np.prod(shape))
        octets = self._bits.random_raw(count).view(np.uint8).reshape(count, 8)
        total: NDArray[np.int64] = octets.sum(axis=1, dtype=np.int64) - 1020
        return total.reshape(shape)


@dataclass(frozen=True)
class Part:
    """An ellipsoid, or a cylinder along z where its third radius is 0, of one attenuation.

    Attributes:
        name: Parts of one name belong together.
        hu: Attenuation.
        centre, radii: LPS mm.
        turn: Tangent of half the angle by which it is turned about z; rational, so cosine and sine are too.
        bump: Weight of the cubic term that dents the ellipsoid; 0 to 1.
        inside: Painted only over parts of these names; empty: over anything.
    """

    name: str
    hu: int
    centre: Triple
    radii: Triple
    turn: float = 0.0
    bump: float = 0.0
    inside: tuple[str, ...] = ()


def build_anatomy(draws: IntegerDraws, n_tumours: int) -> tuple[Part, ...]:
    """One patient, as parts in the order of painting.

    Args:
        draws: Decides sizes, places and attenuations.
        n_tumours: Tumours inside the liver, 12 to 30 mm in radius and 40 to 65 HU darker than the liver, as metastases
            are in the portal venous phase.
    """
    size = draws.between(930, 1060) / 1000.0
    liver_hu = draws.between(96, 116)
    body = [
        Part("fat", -95, (0.0, 0.0, 0.0), (165.0 * size, 120.0 * size, 0.0)),
        Part("muscle", 55, (0.0, 0.0, 0.0), (153.0 * size, 108.0 * size, 0.0)),
        Part("cavity", -60, (0.0, -6.0, 0.0), (138.0 * size, 93.0 * size, 0.0)),
        Part("lung", -820, (-72.0, 0.0, 128.0), (62.0, 80.0, 68.0), inside=("cavity",)),
        Part("lung", -820, (72.0, 0.0, 132.0), (60.0, 80.0, 68.0), inside=("cavity",)),
    ]
    organs = [*_bowel(draws), *_organs(draws, size), *_liver(draws, size, liver_hu, n_tumours)]
    return (*body, *organs, *_spine(draws))


def _near(draws: IntegerDraws, centre: Triple, reach: int) -> Triple:
    x, y, z = (value + draws.between(-reach, reach) for value in centre)
    return x, y, z


def _sized(draws: IntegerDraws, radii: Triple, size: float) -> Triple:
    x, y, z = (value * size * draws.between(880, 1120) / 1000.0 for value in radii)
    return x, y, z


def _bowel(draws: IntegerDraws) -> list[Part]:
    loops = []
    for _ in range(9):
        centre = (float(draws.between(-95, 95)), float(draws.between(-65, 15)), float(draws.between(-110, -25)))
        radii = (float(draws.between(14, 30)), float(draws.between(12, 22)), float(draws.between(12, 26)))
        hu = draws.between(10, 70) if draws.between(0, 4) else -700
        loops.append(Part("bowel", hu, centre, radii, turn=draws.between(-50, 50) / 100.0, inside=("cavity",)))
    return loops


def _organs(draws: IntegerDraws, size: float) -> list[Part]:
    within = ("cavity", "lung", "bowel")
    stomach = Part(
        "stomach",
        draws.between(15, 60),
        _near(draws, (58.0, -35.0, 42.0), 8),
        _sized(draws, (46.0, 38.0, 44.0), size),
        turn=0.2,
        inside=within,
    )
    spleen = Part(
        "spleen",
        draws.between(104, 128),
        _near(draws, (94.0 * size, 34.0, 44.0), 6),
        _sized(draws, (33.0, 44.0, 46.0), size),
        turn=-draws.between(10, 30) / 100.0,
        bump=draws.between(0, 60) / 100.0,
        inside=(*within, "stomach"),
    )
    parts = [stomach, spleen]
    kidney_hu = draws.between(150, 190)
    for side, name in ((1.0, "kidney_left"), (-1.0, "kidney_right")):
        centre = _near(draws, (side * 62.0 * size, 44.0, -22.0 - 6.0 * (side < 0)), 6)
        radii = _sized(draws, (27.0, 25.0, 50.0), size)
        parts.append(Part(name, kidney_hu, centre, radii, turn=side * 0.2, bump=0.3, inside=(*within, "spleen")))
        sinus = (centre[0] - side * 8.0, centre[1] - 2.0, centre[2])
        parts.append(Part(name, -20, sinus, (radii[0] * 0.35, radii[1] * 0.35, radii[2] * 0.5), inside=(name,)))
    aorta = Part("vessel", 150, (14.0, 36.0, 0.0), (11.0, 11.0, 0.0))
    cava = Part("vessel", 130, (-20.0, 34.0, 0.0), (13.0, 11.0, 0.0))
    return [*parts, aorta, cava]


def _liver(draws: IntegerDraws, size: float, hu: int, n_tumours: int) -> list[Part]:
    within = ("cavity", "lung", "bowel", "stomach", "kidney_right")
    centre = _near(draws, (-66.0 * size, -8.0, 34.0), 7)
    radii = _sized(draws, (70.0, 68.0, 72.0), size)
    lobe_centre = _near(draws, (4.0, -48.0, 44.0), 7)
    lobe_radii = _sized(draws, (66.0, 34.0, 38.0), size)
    bump = draws.between(20, 90) / 100.0
    parts = [
        Part("liver", hu, centre, radii, turn=draws.between(-20, 20) / 100.0, bump=bump, inside=within),
        Part("liver", hu, lobe_centre, lobe_radii, turn=draws.between(-15, 15) / 100.0, inside=within),
    ]
    for _ in range(4):
        place = tuple(c + r * draws.between(-45, 45) / 100.0 for c, r in zip(centre, radii, strict=True))
        parts.append(
            Part(
                "liver_vessel",
                hu + draws.between(20, 40),
                (place[0], place[1], place[2]),
                (float(draws.between(18, 36)), 6.0, float(draws.between(6, 14))),
                turn=draws.between(-90, 90) / 100.0,
                inside=("liver",),
            )
        )
    gallbladder = (centre[0] + 26.0, centre[1] - 34.0, centre[2] - 44.0)
    parts.append(
        Part(
            "gallbladder",
            draws.between(5, 18),
            gallbladder,
            (14.0, 20.0, 16.0),
            inside=("liver", "liver_vessel", "cavity", "bowel"),
        )
    )
    for index in range(n_tumours):
        place = tuple(c + r * draws.between(-42, 42) / 100.0 for c, r in zip(centre, radii, strict=True))
        radius = draws.between(14, 30) if index == 0 else draws.between(12, 16)
        shape = tuple(radius * draws.between(850, 1150) / 1000.0 for _ in range(3))
        parts.append(
            Part(
                "tumour",
                hu - draws.between(40, 65),
                (place[0], place[1], place[2]),
                (shape[0], shape[1], shape[2]),
                turn=draws.between(-80, 80) / 100.0,
                bump=draws.between(0, 90) / 100.0,
                inside=("liver", "liver_vessel", "gallbladder"),
            )
        )
    return parts


def _spine(draws: IntegerDraws) -> list[Part]:
    y = 66.0 + draws.between(-3, 3)
    return [
        Part("spine", 420, (0.0, y, 0.0), (25.0, 21.0, 0.0)),
        Part("spine", draws.between(150, 230), (0.0, y, 0.0), (21.0, 17.0, 0.0)),
        Part("spine", 300, (0.0, y + 30.0, 0.0), (9.0, 14.0, 0.0)),
        Part("canal", 25, (0.0, y + 22.0, 0.0), (8.0, 7.0, 0.0)),
    ]
