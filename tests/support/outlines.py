"""Closed outlines with known areas, and slices that lie anywhere; nothing here is taken from the package's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.path import Path as Outline

from monai_tl.dicom.geometry import SliceGeometry

SERIES, STUDY, FRAME = "1.2.3.4", "1.2.3", "1.2.3.9"


def rotation(seed: int) -> np.ndarray:
    """A random right-handed set of axes, one a row."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    axes[2] = np.cross(axes[0], axes[1])
    return axes


def slices(
    n_slices: int,
    rows: int,
    columns: int,
    *,
    axes: np.ndarray | None = None,
    spacing: tuple[float, float, float] = (0.7, 0.8, 2.5),
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    shear: tuple[float, float] = (0.0, 0.0),
    **more: object,
) -> SliceGeometry:
    """Slices on any axes (row direction, column direction, normal); spacing between rows, columns, slices, mm.

    ``shear`` is how far each slice lies from the one before, mm along rows and columns.
    """
    frame = np.eye(3) if axes is None else axes
    step = spacing[2] * frame[2] + shear[0] * frame[0] + shear[1] * frame[1]
    fields = {
        "sop_instance_uids": tuple(f"{SERIES}.{k + 1}" for k in range(n_slices)),
        "series_instance_uid": SERIES,
        "study_instance_uid": STUDY,
        "frame_of_reference_uid": FRAME,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "rows": rows,
        "columns": columns,
        "positions_lps": np.asarray(origin) + np.arange(n_slices)[:, None] * step,
        "row_direction": frame[0],
        "column_direction": frame[1],
        "pixel_spacing_mm": spacing[:2],
        "paths": tuple(Path(f"{k}.dcm") for k in range(n_slices)),
        **more,
    }
    return SliceGeometry(**fields)


def in_world(pixels: np.ndarray, k: float, geometry: SliceGeometry) -> np.ndarray:
    """(N, 3) LPS mm of (column, row) positions on slice k, by the standard's equation (PS3.3 C.7.6.2.1.1)."""
    first, last = geometry.positions_lps[0], geometry.positions_lps[-1]
    position = first + k * (last - first) / (geometry.n_slices - 1)
    between_rows, between_columns = geometry.pixel_spacing_mm
    return (
        position
        + pixels[:, :1] * between_columns * geometry.row_direction
        + pixels[:, 1:] * between_rows * geometry.column_direction
    )


def star(seed: int, centre: tuple[float, float], low: float, high: float, n: int = 30) -> np.ndarray:
    """(N, 2) corners of an outline that goes once around its centre and does not cross itself."""
    rng = np.random.default_rng(seed)
    angle = np.sort(np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 0.9 * 2 * np.pi / n, n))
    radius = rng.uniform(low, high, n)
    return np.asarray(centre) + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def circle(x: float, y: float, radius: float, n: int = 200) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + 0.1
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def area_and_perimeter(points: np.ndarray) -> tuple[float, float]:
    """Of a plane outline in three dimensions: Stokes' theorem, and the sum of its edges."""
    following = np.roll(points, -1, axis=0)
    area = np.linalg.norm(np.cross(points - points[0], following - points[0]).sum(axis=0)) / 2
    return float(area), float(np.linalg.norm(following - points, axis=1).sum())


def inside(outline: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) bool by matplotlib, a second implementation."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    closed = Outline(np.concatenate([outline, outline[:1]]), closed=True)
    return closed.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(rows, columns)


def away_from(outline: np.ndarray, rows: int, columns: int, margin: float = 2e-4) -> np.ndarray:
    """(rows, columns) bool: centres further than a margin, in pixels, from every edge of an outline."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    points = np.stack([x, y], axis=-1)[..., None, :]
    edges = np.roll(outline, -1, axis=0) - outline
    along = np.clip(((points - outline) * edges).sum(axis=-1) / (edges**2).sum(axis=-1), 0, 1)
    return np.linalg.norm(points - outline - along[..., None] * edges, axis=-1).min(axis=-1) > margin
