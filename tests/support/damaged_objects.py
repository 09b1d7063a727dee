"""Whole objects that are no volume of grey slices, and multi-frame objects that contradict themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from damage import Outcome, damaged, refused, setting, spoil_all, spoil_one, whole_series
from damaged_files import CUT, nested
from dicom_bytes import (
    CANARY,
    PIXELS,
    Elements,
    Series,
    decimal,
    file_bytes,
    new_series,
    save,
    sequence,
    short,
    text,
    uid,
)

_IMAGE_ONLY = frozenset(
    (0x00080008, 0x00200032, 0x00200037, 0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280030, 0x00280100,
     0x00280101, 0x00280102, 0x00280103, 0x00281052, 0x00281053, PIXELS)
)  # fmt: skip
OTHER = "neither an image nor a label|no image"


def _object(
    name: str, sop_class: str, modality: str, more: Elements | None = None, codes: str = "other_object"
) -> None:
    """A kind: one file of a class that holds no image."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        elements = {tag: value for tag, value in new_series(rng).elements(0).items() if tag not in _IMAGE_ONLY}
        elements[0x00080016], elements[0x00080060] = ("UI", uid(sop_class)), ("CS", text(modality))
        save(folder / f"{CANARY}.dcm", file_bytes({**elements, **(more or {})}))
        return [(refused("file", codes, OTHER),)]

    make.__name__ = name
    damaged(make)


_CLASS = "1.2.840.10008.5.1.4.1.1."
_object(
    "dicomdir", "1.2.840.10008.1.3.10", "",
    {0x00041130: ("CS", text("DISK")), 0x00041220: sequence({0x00041430: ("CS", text("PATIENT")),
                                                             0x00041500: ("CS", text("..", "..", CANARY))})},
)  # fmt: skip
_object("structured_report", _CLASS + "88.11", "SR", {0x0040A730: sequence({0x0040A160: ("UT", text(CANARY))})})
_object("encapsulated_pdf", _CLASS + "104.1", "DOC", {0x00420011: ("OB", b"%PDF-1.7 " + CANARY.encode() + b" ")})
_object("presentation_state", _CLASS + "11.1", "PR")
_object("key_object_selection", _CLASS + "88.59", "KO")
_object("registration", _CLASS + "66.1", "REG")
_object("raw_data", _CLASS + "66", "MR", {0x00091001: ("OB", b"\0" * 512)})
_object("waveform", _CLASS + "9.1.1", "ECG", {0x54000100: sequence({0x54001010: ("OW", b"\0" * 512)})})
_object("treatment_plan", _CLASS + "481.5", "RTPLAN")
_object(
    "overlay_only", _CLASS + "8", "OT",
    {0x60000010: ("US", short(12)), 0x60000011: ("US", short(14)), 0x60003000: ("OW", b"\x55" * 22)},
)  # fmt: skip


def _whole(name: str, codes: str, says: str, **values: tuple[str, bytes] | None) -> None:
    """A kind: a series in which every image says it is something else than a slice of a volume."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        spoil_all(folder, rng, setting(**values))
        return [(refused("series", codes, says),), (refused("file", codes, says, 6),)]

    make.__name__ = name
    damaged(make)


_whole("localizer", "localizer", "localizer", x00080008=("CS", text("ORIGINAL", "PRIMARY", "LOCALIZER")))
_whole("secondary_capture", "secondary_capture", "[Ss]econdary capture", x00080016=("UI", uid(_CLASS + "7")))
_whole("burned_in_annotation", "burned_in", "BurnedInAnnotation", x00280301=("CS", text("YES")))
_whole("mosaic", "mosaic", "[Mm]osaic", x00080008=("CS", text("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC")))
_whole("dose_grid", "other_object", OTHER, x00080060=("CS", text("RTDOSE")), x00080016=("UI", uid(_CLASS + "481.2")))


@damaged
def lookup_table_that_lies(folder, rng):
    """A modality look-up table that describes 65,536 entries and holds four."""
    table = sequence({0x00283002: ("US", short(0, 0, 16)), 0x00283006: ("US", short(0, 1, 2, 3))})
    spoil_all(folder, rng, setting(x00283000=table, x00281052=None, x00281053=None))
    return whole_series("lookup_table", "look-up table")


@damaged
def colour(folder, rng):
    def paint(elements: Elements) -> None:
        elements[0x00280002], elements[0x00280004] = ("US", short(3)), ("CS", text("RGB"))
        elements[0x00280006] = ("US", short(0))
        elements[PIXELS] = ("OW", elements[PIXELS][1] * 3)

    spoil_all(folder, rng, paint)
    return [(refused("series", "colour", "colou?r"),)]


@damaged
def one_colour_slice(folder, rng):
    def paint(elements: Elements) -> None:
        elements[0x00280002], elements[0x00280004] = ("US", short(3)), ("CS", text("RGB"))
        elements[PIXELS] = ("OW", elements[PIXELS][1] * 3)

    spoil_one(folder, rng, paint)
    return [(refused("series", "colour", "colou?r"),)]


@damaged
def colour_multiframe_capture(folder, rng):
    """A screen recording."""
    elements = new_series(rng).elements(0)
    elements[0x00080016] = ("UI", uid(_CLASS + "7.4"))
    elements[0x00280002], elements[0x00280004] = ("US", short(3)), ("CS", text("RGB"))
    elements[0x00280008] = ("IS", text(4))
    elements[PIXELS] = ("OW", elements[PIXELS][1] * 12)
    save(folder / "capture.dcm", file_bytes(elements))
    return [(refused("series", "secondary_capture colour", "capture|colou?r"),),
            (refused("file", "secondary_capture colour", "capture|colou?r"),)]  # fmt: skip


def enhanced(series: Series) -> Elements:
    """All slices as the frames of one Enhanced CT object."""
    first = series.elements(0)
    shared = {
        0x00209116: sequence({0x00200037: first.pop(0x00200037)}),
        0x00289110: sequence({0x00180050: first.pop(0x00180050), 0x00280030: first.pop(0x00280030)}),
        0x00289145: sequence(
            {0x00281052: first.pop(0x00281052), 0x00281053: first.pop(0x00281053), 0x00281054: ("LO", text("HU"))}
        ),
    }
    del first[0x00200032]
    n_frames = len(series.stored)
    return {
        **first,
        0x00080016: ("UI", uid(_CLASS + "2.1")),
        0x00280008: ("IS", text(n_frames)),
        0x52009229: sequence(shared),
        0x52009230: sequence(*(_per_frame(series, k) for k in range(n_frames))),
        PIXELS: ("OW", series.stored.astype("<u2").tobytes()),
    }


def _per_frame(series: Series, k: int) -> Elements:
    return {
        0x00209111: sequence({0x00209057: ("UL", (k + 1).to_bytes(4, "little"))}),
        0x00209113: sequence({0x00200032: ("DS", decimal(*series.position(k)))}),
    }


def _enhanced(folder: Path, rng: np.random.Generator, change, codes: str, says: str) -> list[Outcome]:
    series = new_series(rng)
    elements = enhanced(series)
    content = change(elements, series) or file_bytes(elements)
    save(folder / f"{CANARY}.dcm", content)
    return [(refused("series", codes, says),), (refused("file", codes, says),)]


FRAMES = "[Ff]rame"


@damaged
def enhanced_fewer_items_than_frames(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        elements[0x52009230] = sequence(*(_per_frame(series, k) for k in range(4)))

    return _enhanced(folder, rng, change, "damaged frames", FRAMES)


@damaged
def enhanced_more_items_than_frames(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        elements[0x52009230] = sequence(*(_per_frame(series, k) for k in range(9)))

    return _enhanced(folder, rng, change, "damaged frames", FRAMES)


@damaged
def enhanced_2147483647_frames(folder, rng):
    def change(elements: Elements, _: Series) -> None:
        elements[0x00280008] = ("IS", text(2**31 - 1))

    return _enhanced(folder, rng, change, "damaged too_large frames", FRAMES)


@damaged
def enhanced_frames_of_text(folder, rng):
    def change(elements: Elements, _: Series) -> None:
        elements[0x00280008] = ("IS", text("CANARY90817"))

    return _enhanced(folder, rng, change, "damaged frames", "NumberOfFrames|[Ff]rame|pars")


@damaged
def enhanced_without_frame_groups(folder, rng):
    def change(elements: Elements, _: Series) -> None:
        del elements[0x52009230]

    return _enhanced(folder, rng, change, "damaged missing_geometry multiframe", "[Ff]rame")


@damaged
def enhanced_cut_in_the_frame_groups(folder, rng):
    def change(elements: Elements, series: Series) -> bytes:
        content = file_bytes(elements)
        return content[: content.index(decimal(*series.position(3)))]

    return _enhanced(folder, rng, change, "damaged", CUT)


@damaged
def enhanced_truncated_pixels(folder, rng):
    def change(elements: Elements, _: Series) -> None:
        elements[PIXELS] = ("OW", elements[PIXELS][1][:1000])

    return _enhanced(folder, rng, change, "truncated_pixels", "pixel")


@damaged
def enhanced_rows_65535(folder, rng):
    def change(elements: Elements, _: Series) -> None:
        elements[0x00280010] = elements[0x00280011] = ("US", short(65535))

    return _enhanced(folder, rng, change, "too_large truncated_pixels", "voxels|Rows|large|pixel")


@damaged
def enhanced_position_missing(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        frames = [_per_frame(series, k) for k in range(6)]
        del frames[3][0x00209113]
        elements[0x52009230] = sequence(*frames)

    return _enhanced(folder, rng, change, "missing_geometry damaged", "ImagePositionPatient|[Ff]rame")


@damaged
def enhanced_position_of_nan(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        frames = [_per_frame(series, k) for k in range(6)]
        frames[3][0x00209113] = sequence({0x00200032: ("DS", text("nan", 0, 1))})
        elements[0x52009230] = sequence(*frames)

    return _enhanced(folder, rng, change, "missing_geometry damaged", "ImagePositionPatient|[Ff]rame|finite")


@damaged
def enhanced_frame_missing(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        kept = [0, 1, 2, 4, 5]
        elements[0x00280008] = ("IS", text(5))
        elements[0x52009230] = sequence(*(_per_frame(series, k) for k in kept))
        elements[PIXELS] = ("OW", series.stored[kept].astype("<u2").tobytes())

    return _enhanced(folder, rng, change, "missing_slice", r"gap of 5\.00")


@damaged
def enhanced_frames_at_one_place(folder, rng):
    def change(elements: Elements, series: Series) -> None:
        elements[0x52009230] = sequence(*(_per_frame(series, 0) for _ in range(6)))

    return _enhanced(folder, rng, change, "duplicate_position", "slice|position|frame")


@damaged
def enhanced_deeply_nested_frame_groups(folder, rng):
    series = new_series(rng)
    frames = [_per_frame(series, k) for k in range(6)]
    frames[3][0x00091001] = ("", nested(50_000, True, 0x00091001, "SQ"))
    save(folder / f"{CANARY}.dcm", file_bytes({**enhanced(series), 0x52009230: sequence(*frames)}))
    return [
        (series.grid(),),
        (refused("file", "damaged", "nest|deep"),),
        (refused("series", "damaged", "nest|deep"),),
    ]


@damaged
def enhanced_two_instances_in_conflict(folder, rng):
    series = new_series(rng)
    save(folder / "a.dcm", file_bytes(enhanced(series)))
    other = enhanced(series)
    other[PIXELS] = ("OW", b"\7\0" + other[PIXELS][1][2:])
    save(folder / "b.dcm", file_bytes(other))
    return [(refused("series", "conflicting_instance", "different content"),)]


@damaged
def images_without_rows_and_columns(folder, rng):
    """An image class in name, but neither rows nor columns in any file."""
    spoil_all(folder, rng, setting(x00280010=None, x00280011=None))
    return [(refused("file", "damaged", "Rows", 6),)]
