"""A series as the volumes it holds: two echoes, phases or orientations under one identifier are never stacked.

What differs in kind (frame of reference, image type, component, echo, orientation, size) is always split. What only
may tell volumes apart (acquisition, time, diffusion …) splits a series that is no volume as a whole: a scan in
several acquisitions along the body is one volume, several acquisitions of one place are several.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import TypeVar

import numpy as np

from monai_tl.dicom.header import Header
from monai_tl.dicom.stacking import AXES_TOLERANCE, PIXEL_TOLERANCE, stack
from monai_tl.errors import DicomError

Part = tuple[tuple[str, str], ...]
"""What tells a volume from the others of its series, e.g. ``(("echo_time_ms", "4.6"),)``; empty for a whole series."""
Parts = list[tuple[Part, tuple[Header, ...]]]
_Value = TypeVar("_Value", bound=Hashable)
_Size = tuple[int, int, float, float]
"""Rows, columns, and mm between them."""

_MIN_CLUSTER = 3
"""Slices that share a direction or size of their own and are a volume rather than a stray slice."""
_FAULTS_OF_MIXTURE = frozenset(("duplicate_position", "missing_slice", "irregular_spacing"))
_MAX_VOLUMES = 4096
# shown as they are; all others (times of day, free text) as a number in order
_SHOWN = {
    "AcquisitionNumber": "acquisition", "TemporalPositionIdentifier": "temporal_position", "KVP": "kvp",
    "InversionTime": "inversion_time_ms", "FlipAngle": "flip_angle_deg", "TriggerTime": "trigger_time_ms",
    "StackID": "stack", "DiffusionBValue": "b_value",
}  # fmt: skip
_COUNTED = {
    "DiffusionGradientOrientation": "diffusion_direction", "ContrastBolusAgentPhase": "contrast_phase",
    "TemporalPositionTimeOffset": "time_offset", "FrameReferenceTime": "frame_time",
    "NominalPercentageOfCardiacPhase": "cardiac_phase", "ConvolutionKernel": "kernel",
    "AcquisitionTime": "acquisition_time", "ContentTime": "content_time",
    "AcquisitionPhase": "acquisition_time", "ContentPhase": "content_time",
}  # fmt: skip
_TRAITS = ("StackID", *(name for name in (*_SHOWN, *_COUNTED) if name != "StackID"))
_PHASES = {"AcquisitionTime": "AcquisitionPhase", "ContentTime": "ContentPhase"}
_SHOT_IN_TURNS = frozenset(("AcquisitionNumber", "AcquisitionPhase", "ContentPhase", "TriggerTime"))
_NUMBERED = frozenset(("StackID", "AcquisitionNumber", "TemporalPositionIdentifier"))
_PAUSE_S = 2.0
"""Between two phases of a scan; slices of one follow each other faster."""
_ECHO_TOLERANCE = 0.02
# longer ones may be the number of a patient
_NUMBER = re.compile(r"-?\d{1,4}(\.\d{1,3})?")
# the words that image types and components are made of, by the standard and by usage; a name may stand in any text
_WORDS = frozenset((
    "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "OTHER", "VOLUME", "NONE", "MIXED", "MPR",
    "MIP", "MINIP", "MNIP", "CSA MIP", "CSA MPR", "CSA RESAMPLED",
    "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "M", "P", "R", "I", "M_FFE", "P_FFE", "R_FFE", "I_FFE", "FFE", "M_SE",
    "SE", "M_IR", "R_IR", "I_IR", "P_SE", "IR", "PCA", "M_PCA", "P_PCA", "PHASE MAP", "VELOCITY", "ADC", "DIFFUSION",
    "DIFFUSION_ANISO", "TRACEW", "FA", "PERFUSION", "T1", "T2", "T2_STAR", "T1 MAP", "T2 MAP", "T2_STAR MAP", "NORM",
    "DIS2D", "DIS3D", "ND", "FM", "MFSPLIT", "FIL", "SH1", "SH2", "MOSAIC", "WATER", "FAT", "W", "F", "IP", "OP", "OOP",
    "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "IN PHASE", "OUT OF PHASE", "SUBTRACTION", "SUB", "AVERAGE", "MEAN", "MIN",
    "MAX", "MIN_IP", "MAX_IP", "PROJECTION IMAGE", "RESAMPLED", "REFORMATTED", "HELIX", "SPI", "CT_SOM5 SPI",
    "CT_SOM5 SEQ", "CT_SOM7 SPI", "DYNAMIC", "STATIC", "GATED", "WHOLE BODY", "EMISSION", "TRANSMISSION", "ATTENUATION",
    "CINE", "COMBINED", "BONE", "SOFT", "LUNG", "",
))  # fmt: skip


def split_series(headers: Sequence[Header]) -> Parts:
    """The volumes of one series.

    Args:
        headers: All images of the series, single or frames; in any order.

    Returns:
        What tells each part from the others, and its images. Each image is in one part. A part need not be a volume:
        stacking refuses it by name when it is not.
    """
    if len({(header.patient_id, header.study_uid) for header in headers}) > 1:
        return [((), tuple(headers))]
    parts: Parts = [((), tuple(headers))]
    for name, value_of, shows in _KINDS:
        parts = [piece for part, group in parts for piece in _split_by(part, group, name, value_of, shows)]
    for cluster in (_by_orientation, _by_size):
        parts = [piece for part, group in parts for piece in cluster(part, group)]
    return [piece for part, group in parts for piece in _by_traits(part, group)]


_KINDS: tuple[tuple[str, Callable[[Header], Hashable], bool], ...] = (
    ("kind", lambda header: (header.modality, header.sop_class_uid), False),
    ("frame_of_reference", lambda header: header.frame_of_reference_uid or "", False),
    ("image_type", lambda header: "\\".join(header.image_type).rstrip("\\"), True),
    ("component", lambda header: header.component, True),
    ("echo", lambda header: header.echo, True),
)


def _split_by(
    part: Part, headers: tuple[Header, ...], name: str, value_of: Callable[[Header], Hashable], shows: bool
) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    groups = _grouped(headers, value_of) if name != "echo" else _by_echo(headers)
    if len(groups) == 1 or (name in ("image_type", "frame_of_reference") and _is_one_volume(name, headers, groups)):
        yield part, headers
        return
    if name == "echo" and all(header.has_echo_time for header in headers):
        name = "echo_time_ms"
    for number, value in enumerate(sorted(groups, key=lambda value: _natural(str(value))), start=1):
        yield (*part, (name, _shown(value, number, len(groups), shows))), groups[value]


def _is_one_volume(name: str, headers: tuple[Header, ...], groups: dict[Hashable, tuple[Header, ...]]) -> bool:
    """Whether a stray word in ImageType, or a blank frame of reference, tears apart what is one volume as a whole."""
    if name == "frame_of_reference" and (len(groups) > 2 or "" not in groups):
        # each slice in a frame of its own: left together, to be refused by name
        return len(groups) == len(headers) >= _MIN_CLUSTER
    if any("LOCALIZER" in header.image_type for header in headers) or _fault(headers):
        return False
    return any(len(group) < _MIN_CLUSTER or _fault(group) in _FAULTS_OF_MIXTURE for group in groups.values())


def _by_echo(headers: tuple[Header, ...]) -> dict[Hashable, tuple[Header, ...]]:
    """Echo times that differ by less than any sequence's echoes are one: some scanners record them slice by slice."""
    values = sorted({header.echo for header in headers}, key=_natural)
    first_of: dict[str, str] = {}
    for before, value in zip([None, *values], values, strict=False):
        near = before is not None and _natural(value)[0] - _natural(before)[0] <= _ECHO_TOLERANCE * _natural(value)[0]
        first_of[value] = first_of[before] if near and before is not None and before and value else value
    return dict(_grouped(headers, lambda header: first_of[header.echo]))


def _grouped(headers: Sequence[Header], value_of: Callable[[Header], _Value]) -> dict[_Value, tuple[Header, ...]]:
    groups: dict[_Value, list[Header]] = defaultdict(list)
    for header in headers:
        groups[value_of(header)].append(header)
    return {value: tuple(found) for value, found in groups.items()}


def _shown(value: object, number: int, count: int, shows: bool) -> str:
    """A value that identifies nobody, or its place among the others."""
    words = str(value).split("\\")
    is_plain = shows and len(words) <= 8 and all(word in _WORDS or _NUMBER.fullmatch(word) for word in words)
    return "\\".join(words) if is_plain else f"{number} of {count}"


def _by_orientation(part: Part, headers: tuple[Header, ...]) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    """Sets of parallel slices; a stray slice that is not parallel leaves all together, to be refused by name."""
    placed = [header for header in headers if header.orientation is not None]
    if len(placed) < len(headers) or len(headers) < 2 * _MIN_CLUSTER or headers[0].said_localizer:
        yield part, headers
        return
    cosines = np.array([header.orientation for header in headers])
    if float(np.ptp(cosines, axis=0).max()) <= AXES_TOLERANCE:
        yield part, headers
        return
    clusters: list[tuple[np.ndarray, list[Header]]] = []
    # in an order that file names have no part in: the clusters' numbers go into names of cases
    for index in np.lexsort(cosines.T[::-1]):
        cosine, header = cosines[index], headers[index]
        for first, members in clusters:
            if float(np.abs(cosine - first).max()) <= AXES_TOLERANCE / 2:
                members.append(header)
                break
        else:
            clusters.append((cosine, [header]))
        if len(clusters) > len(headers) // _MIN_CLUSTER:
            break
    yield from _clusters(part, headers, "orientation", [members for _, members in clusters])


def _by_size(part: Part, headers: tuple[Header, ...]) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    clusters: list[tuple[_Size, list[Header]]] = []
    for size, members in sorted(_grouped(headers, _size).items()):
        # next to the last in order: a spacing that two exports rounded differently is one
        if clusters and _is_same_size(size, clusters[-1][0]):
            clusters[-1][1].extend(members)
        else:
            clusters.append((size, list(members)))
    yield from _clusters(part, headers, "size", [members for _, members in clusters])


def _size(header: Header) -> _Size:
    rows_mm, columns_mm = header.pixel_spacing_mm or (0.0, 0.0)
    return header.rows, header.columns, rows_mm, columns_mm


def _is_same_size(first: _Size, second: _Size) -> bool:
    pairs = zip(first[2:], second[2:], strict=True)
    return first[:2] == second[:2] and all(abs(one - other) <= PIXEL_TOLERANCE * other for one, other in pairs)


def _clusters(
    part: Part, headers: tuple[Header, ...], name: str, clusters: Sequence[Sequence[Header]]
) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    if len(clusters) < 2 or min(map(len, clusters)) < _MIN_CLUSTER or sum(map(len, clusters)) < len(headers):
        yield part, headers
        return
    for number, members in enumerate(clusters, start=1):
        yield (*part, (name, f"{number} of {len(clusters)}")), tuple(members)


def _by_traits(part: Part, headers: tuple[Header, ...]) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    """Split what is no volume as it is by the fewest traits that make volumes of it; else leave it as it is."""
    traits = _traits_of(headers)
    fault, overlapping = _fault(headers), _overlapping(headers, traits)
    if fault not in _FAULTS_OF_MIXTURE and not overlapping:
        yield part, headers
        return
    # a gap where an acquisition or a time changes is still a missing slice
    eligible = _TRAITS if fault == "duplicate_position" else ("StackID", *overlapping)
    present = [name for name in eligible if len({found.get(name) for found in traits}) > 1]
    n_places = _n_places(headers)
    for count in (1, 2):
        for names in combinations(present, count):
            groups: dict[tuple[str | None, ...], list[Header]] = defaultdict(list)
            for header, found in zip(headers, traits, strict=True):
                groups[tuple(found.get(name) for name in names)].append(header)
            least = n_places // 2 + 1 if fault == "duplicate_position" and set(names) - _NUMBERED else _MIN_CLUSTER
            if _are_volumes([*groups.values()], min(least, n_places)):
                yield from _named(part, names, groups)
                return
    yield part, headers


def _fault(headers: Sequence[Header]) -> str:
    try:
        stack(headers, 1)
    except DicomError as error:
        return error.code
    return ""


def _traits_of(headers: Sequence[Header]) -> list[dict[str, str]]:
    """Traits of each image; times also by the phase they belong to, as slices of one phase may each have their own."""
    traits = [dict(header.traits) for header in headers]
    for name, phase in _PHASES.items():
        phases = _phases({found[name] for found in traits if name in found})
        for found in traits:
            if name in found and len(set(phases.values())) > 1:
                found[phase] = str(phases[found[name]])
    return traits


def _phases(times: set[str]) -> dict[str, int]:
    """Times of day (HHMMSS.F, after the day where there is one) → number of the phase; a pause begins a new one."""
    seconds = {}
    for text in times:
        clock = text[8:] if len(text) >= 14 and text[:14].isdigit() else text
        if clock[:6].isdigit():
            seconds[text] = int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + float(clock[4:6])
    ordered = sorted(seconds, key=lambda text: (seconds[text], text))
    phases, number = dict.fromkeys(times, 0), 0
    for before, text in zip([None, *ordered], ordered, strict=False):
        number += before is not None and seconds[text] - seconds[before] > _PAUSE_S
        phases[text] = number
    return phases


def _overlapping(headers: Sequence[Header], traits: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Traits by which volumes interleave along the normal, though together they may look like one finer volume.

    In MR, slices of several acquisitions are shot in turns on purpose and are one volume.
    """
    in_turns = _SHOT_IN_TURNS if headers[0].modality == "MR" else frozenset[str]()
    names = [name for name in _TRAITS if name not in in_turns and name not in _PHASES]
    distances = _distances(headers)
    return tuple(name for name in names if _overlaps([found.get(name, "") for found in traits], distances))


def _overlaps(values: Sequence[str], distances: Sequence[float]) -> bool:
    groups: dict[str, list[float]] = defaultdict(list)
    for value, distance in zip(values, distances, strict=True):
        groups[value].append(distance)
    if len(groups) < 2 or len(groups) == len(values):
        return False
    spans = sorted((min(found), max(found)) for found in groups.values())
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def _distances(headers: Sequence[Header]) -> list[float]:
    """Of each slice along the normal of the first, mm; 0 where it cannot be placed."""
    orientation = headers[0].orientation
    if orientation is None:
        return [0.0] * len(headers)
    with np.errstate(all="ignore"):
        # absurd numbers are refused by name later
        normal = np.cross(orientation[:3], orientation[3:])
        return [float(np.dot(header.position_lps, normal)) if header.position_lps else 0.0 for header in headers]


def _n_places(headers: Sequence[Header]) -> int:
    return len({round(distance, 1) for distance in _distances(headers)})


def _are_volumes(groups: Sequence[Sequence[Header]], least: int) -> bool:
    """Whether each part is a volume of at least so many slices.

    Of one place, each part must fill most of it unless it is numbered: a trait that differs in each slice would make
    "volumes" of single slices.
    """
    if not 2 <= len(groups) <= _MAX_VOLUMES:
        return False
    return min(map(len, groups)) >= max(1, least) and not any(_fault(group) for group in groups)


def _named(
    part: Part, names: Sequence[str], groups: dict[tuple[str | None, ...], list[Header]]
) -> Iterator[tuple[Part, tuple[Header, ...]]]:
    values = [sorted({str(key[axis]) for key in groups}, key=_natural) for axis in range(len(names))]
    for key in sorted(groups, key=lambda one: [_natural(str(value)) for value in one]):
        told = tuple(
            (
                _SHOWN.get(name) or _COUNTED[name],
                _shown(value or "none", values[axis].index(str(value)) + 1, len(values[axis]), name in _SHOWN),
            )
            for axis, (name, value) in enumerate(zip(names, key, strict=True))
        )
        yield (*part, *told), tuple(groups[key])


def _natural(text: str) -> tuple[float, str]:
    """Numbers in their order, before other texts."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
