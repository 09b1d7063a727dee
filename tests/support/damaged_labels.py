"""Labels that belong to something else or contradict themselves: each is refused, and its images are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from damage import Outcome, damaged, refused
from damaged_files import CUT, deflate, nested, zeros_deflated
from dicom_bytes import (
    CANARY,
    DEFLATED,
    PIXELS,
    RLE,
    TOKEN,
    Elements,
    Series,
    body,
    decimal,
    element,
    encapsulated,
    file_bytes,
    meta,
    new_series,
    rectangle,
    rectangle_label,
    rtstruct,
    save,
    segmentation,
    sequence,
    short,
    text,
    uid,
    write_series,
)

ABSENT = f"1.2.826.0.1.{TOKEN}.404"


def _beside(folder: Path, rng: np.random.Generator, label_of, codes: str, says: str) -> list[Outcome]:
    """A good series and one label file beside it; ``label_of(series)`` gives its elements or bytes."""
    series = new_series(rng)
    write_series(folder, series.slices)
    label = label_of(series)
    save(folder / f"{CANARY}_label.dcm", label if isinstance(label, bytes) else file_bytes(label))
    return [(series.grid(), refused("label", codes, says)), (series.grid(), refused("file", codes, says))]


def _with(elements: Elements, **values: tuple[str, bytes] | None) -> Elements:
    changed = {int(name[1:], 16): value for name, value in values.items()}
    return {tag: value for tag, value in {**elements, **changed}.items() if value is not None}


@damaged
def seg_of_another_series(folder, rng):
    return _beside(folder, rng, lambda series: segmentation(series, referenced=ABSENT), "missing_series", "series")


@damaged
def seg_of_another_frame_of_reference(folder, rng):
    return _beside(
        folder, rng, lambda series: segmentation(series, frame=ABSENT), "frame_of_reference", "frame of reference"
    )


@damaged
def rtstruct_of_another_series(folder, rng):
    return _beside(folder, rng, lambda series: rtstruct(series, referenced=ABSENT), "missing_series", "series")


@damaged
def rtstruct_of_another_frame_of_reference(folder, rng):
    return _beside(
        folder, rng, lambda series: rtstruct(series, frame=ABSENT), "frame_of_reference", "frame of reference"
    )


@damaged
def seg_of_a_refused_series(folder, rng):
    series = new_series(rng)
    write_series(folder, [one for k, one in enumerate(series.slices) if k != 3])
    save(folder / "label.dcm", file_bytes(segmentation(series)))
    return [(refused("series", "missing_slice", r"gap of 5\.00"), refused("label", "series_refused", "missing_slice"))]


@damaged
def rtstruct_of_a_refused_series(folder, rng):
    series = new_series(rng)
    write_series(folder, [one for k, one in enumerate(series.slices) if k != 3])
    save(folder / "label.dcm", file_bytes(rtstruct(series)))
    return [(refused("series", "missing_slice", r"gap of 5\.00"), refused("label", "series_refused", "missing_slice"))]


@damaged
def labels_without_any_image(folder, rng):
    series = new_series(rng)
    save(folder / "a.dcm", file_bytes(segmentation(series)))
    save(folder / "b.dcm", file_bytes(rtstruct(series)))
    return [(refused("label", "missing_series", "series", 2),)]


def _seg(name: str, codes: str, says: str, **values: tuple[str, bytes] | None) -> None:
    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        return _beside(folder, rng, lambda series: _with(segmentation(series), **values), codes, says)

    make.__name__ = name
    damaged(make)


_seg("seg_of_2147483647_frames", "too_large damaged", "[Ff]rames", x00280008=("IS", text(2**31 - 1)))
_seg("seg_of_a_million_frames", "too_large damaged", "[Ff]rames", x00280008=("IS", text(10**6)))
_seg("seg_of_minus_one_frames", "too_large damaged", "[Ff]rames", x00280008=("IS", text(-1)))
_seg("seg_of_other_number_of_frames", "damaged", "[Ff]rames", x00280008=("IS", text(3)))
_seg("seg_rows_65535", "too_large damaged truncated_pixels", "[Ff]rames|Rows|pixel", x00280010=("US", short(65535)),
     x00280011=("US", short(65535)))  # fmt: skip
_seg("seg_without_segments", "not_seg", "segments", x00620002=None)
_seg("seg_without_frame_groups", "damaged", "[Ff]rame", x52009230=None)
_seg("seg_of_unknown_type", "not_seg", "SEG|segments", x00620001=("CS", text("VOLUMETRIC")))
_seg("seg_without_pixels", "no_pixels damaged truncated_pixels", "pixel", x7FE00010=None)
_seg("seg_truncated_pixels", "truncated_pixels damaged", "pixel", x7FE00010=("OB", b"\1\2\3\4"))
_seg("seg_of_64_bits", "bits damaged", "[Bb]its", x00280100=("US", short(64)))
_seg("seg_frames_without_segment", "damaged", "segment", x52009230=sequence({}, {}))


@damaged
def seg_position_of_nan(folder, rng):
    def label(series: Series) -> Elements:
        frame = {
            0x00209113: sequence({0x00200032: ("DS", text("nan", 0, 1))}),
            0x0062000A: sequence({0x0062000B: ("US", short(1))}),
        }
        return _with(segmentation(series), x52009230=sequence(frame, frame))

    return _beside(folder, rng, label, "damaged frame_position", "position|frame")


@damaged
def seg_far_from_its_images(folder, rng):
    """The same frame of reference, a kilometre away and with a micrometre of spacing: a grid of absurd height."""

    def label(series: Series) -> Elements:
        frames = [
            {
                0x00209113: sequence({0x00200032: ("DS", decimal(-10, -20, z))}),
                0x0062000A: sequence({0x0062000B: ("US", short(1))}),
            }
            for z in (0.0, 1e6)
        ]
        shared = {
            0x00209116: sequence({0x00200037: ("DS", decimal(*series.orientation))}),
            0x00289110: sequence({0x00180088: ("DS", text("0.001")), 0x00280030: ("DS", decimal(0.7, 0.8))}),
        }
        return _with(segmentation(series), x52009229=sequence(shared), x52009230=sequence(*frames))

    return _beside(folder, rng, label, "too_large frame_position damaged", "grid|large|slices|lie")


@damaged
def seg_of_fewer_rle_bytes(folder, rng):
    def label(series: Series) -> bytes:
        elements = _with(
            segmentation(series), x00280100=("US", short(8)), x00280101=("US", short(8)), x00280102=("US", short(7))
        )
        elements[PIXELS] = encapsulated(rng.bytes(80), rng.bytes(80))
        return file_bytes(elements, RLE)

    return _beside(folder, rng, label, "undecodable_pixels truncated_pixels damaged", "pixel|decod")


@damaged
def seg_deflate_bomb(folder, rng):
    def label(series: Series) -> bytes:
        elements = segmentation(series)
        del elements[PIXELS]
        head = body(elements) + element(PIXELS, "OB", b"", 1200 << 20)
        return meta(elements, DEFLATED) + deflate(head, end=False) + zeros_deflated(1200) + b"\3\0"

    return _beside(folder, rng, label, "deflate_bomb", "inflat")


@damaged
def seg_file_cut(folder, rng):
    """Ends within the description of its frames."""
    return _beside(
        folder, rng, lambda series: file_bytes(segmentation(series))[:-150],
        "damaged truncated_pixels no_pixels", f"pixel|{CUT}",
    )  # fmt: skip


@damaged
def seg_deeply_nested(folder, rng):
    def label(series: Series) -> Elements:
        return _with(segmentation(series), x52009230=("", nested(50_000, False, 0x52009230, "SQ")))

    return _beside(folder, rng, label, "damaged", "nest|deep|frame")


@damaged
def seg_twice_with_other_content(folder, rng):
    """One instance identifier, two contents: neither is taken."""
    series = new_series(rng)
    write_series(folder, series.slices)
    elements = segmentation(series)
    save(folder / "a.dcm", file_bytes(elements))
    save(folder / "b.dcm", file_bytes({**elements, PIXELS: ("OB", b"\xff" * len(elements[PIXELS][1]))}))
    return [(series.grid(), refused("label", "conflicting_instance", "different content"))]


@damaged
def seg_twice_the_same(folder, rng):
    series = new_series(rng)
    write_series(folder, series.slices)
    for name in ("a", "b"):
        save(folder / name / "label.dcm", file_bytes(segmentation(series)))
    return [(series.grid(rectangle_label(series)),)]


def _contours(name: str, codes: str, says: str, *values: bytes) -> None:
    """A kind in which the first outline is a given text, the others are good."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        return _beside(folder, rng, lambda series: rtstruct(series, [*values, *rectangle(series)]), codes, says)

    make.__name__ = name
    damaged(make)


OUTLINE = "outline"
_contours(
    "rtstruct_outline_of_text", "damaged_contour damaged", f"{OUTLINE}|pars", text(CANARY, "b", "c", 1, 2, 3, 4, 5, 6)
)
_contours("rtstruct_outline_of_nan", "damaged_contour", OUTLINE, text("nan", 0, 35, 1, 0, 35, 1, 1, 35))
_contours("rtstruct_outline_of_odd_count", "damaged_contour", OUTLINE, text(0, 0, 35, 1, 0, 35, 1, 1, 35, 7))
_contours("rtstruct_outline_at_1e300", "damaged_contour contour_plane contour_position", OUTLINE,
          text("1e300", 0, 35, "-1e300", 0, 35, 1, "1e300", 35))  # fmt: skip
_contours("rtstruct_outline_across_the_slices", "contour_plane", "parallel", text(0, 0, 30, 1, 0, 40, 1, 1, 35))


@damaged
def rtstruct_outline_far_away(folder, rng):
    """One outline ten metres from the images; the others are good."""
    series = new_series(rng)
    write_series(folder, series.slices)
    far = text(0, 0, 9999, 1, 0, 9999, 1, 1, 9999)
    save(folder / f"{CANARY}_label.dcm", file_bytes(rtstruct(series, [far, *rectangle(series)])))
    return [
        (series.grid(), refused("label", "contour_position", r"outline.* mm")),
        (series.grid(rectangle_label(series)),),
    ]


@damaged
def rtstruct_all_outlines_far_away(folder, rng):
    def label(series: Series) -> Elements:
        return rtstruct(series, [text(0, 0, z, 1, 0, z, 1, 1, z) for z in (9999, 9990)])

    return _beside(folder, rng, label, "contour_position no_outline", "outline")


@damaged
def rtstruct_outline_of_ten_million_points(folder, rng):
    """60 MB of text; as numbers of its own each, it would take gigabytes."""
    series = new_series(rng)
    write_series(folder, series.slices)
    one = b"0\\0\\35\\1\\0\\35\\1\\1\\35\\0\\1\\35"
    outline = b"\\".join([one] * 2_500_000)
    elements = rtstruct(series, [])
    # UN: a DS of explicit representation cannot be longer than 65,534 bytes
    contours = {
        0x30060042: ("CS", text("CLOSED_PLANAR")),
        0x30060050: ("UN", outline + b" " * (len(outline) % 2)),
    }
    elements[0x30060039] = sequence({0x30060040: sequence(contours), 0x30060084: ("IS", text(1))})
    save(folder / f"{CANARY}_label.dcm", file_bytes(elements))
    return [(series.grid(), refused("label", "too_large damaged_contour damaged", "points|outline|large"))]


@damaged
def rtstruct_padded_with_zeros(folder, rng):
    """Some archives fill the last block."""
    series = new_series(rng)
    write_series(folder, series.slices)
    save(folder / f"{CANARY}_label.dcm", file_bytes(rtstruct(series)) + bytes(4096))
    return [(series.grid(rectangle_label(series)),), (series.grid(), refused("label", "damaged", "zeros"))]


@damaged
def rtstruct_of_three_thousand_outlines(folder, rng):
    """Each of its own, too small to hold the centre of a pixel."""
    series = new_series(rng)
    write_series(folder, series.slices)
    # the corner of four pixels in slice 2, 0.35 mm and more from any centre
    corner = (-10 + 3.5 * 0.8, -20 + 3.5 * 0.7, 35)
    contours = []
    for number in range(3_000):
        size = 0.1 + number * 1e-5
        triangle = np.array([corner, corner, corner]) + size * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
        contours.append({0x30060042: ("CS", text("CLOSED_PLANAR")), 0x30060050: ("DS", decimal(*triangle.ravel()))})
    elements = rtstruct(series, [])
    drawn = sequence(*contours)
    elements[0x30060039] = sequence({0x30060040: drawn, 0x30060084: ("IS", text(1))})
    save(folder / f"{CANARY}_label.dcm", file_bytes(elements))
    return [
        (series.grid(np.zeros(series.stored.shape, np.uint8)),),
        (series.grid(), refused("label", "too_large damaged_contour no_outline", "outline")),
    ]


@damaged
def rtstruct_without_structures(folder, rng):
    def label(series: Series) -> Elements:
        return _with(rtstruct(series), x30060020=None, x30060039=None)

    return _beside(folder, rng, label, "no_class no_outline", "structures")


@damaged
def rtstruct_without_outlines(folder, rng):
    return _beside(folder, rng, lambda series: _with(rtstruct(series), x30060039=None), "no_outline", OUTLINE)


@damaged
def rtstruct_of_points(folder, rng):
    def label(series: Series) -> Elements:
        contour = {0x30060042: ("CS", text("POINT")), 0x30060050: ("DS", text(0, 0, 35))}
        drawn = sequence({0x30060040: sequence(contour), 0x30060084: ("IS", text(1))})
        return _with(rtstruct(series), x30060039=drawn)

    return _beside(folder, rng, label, "no_outline", OUTLINE)


@damaged
def rtstruct_numbers_of_text(folder, rng):
    """ROI numbers that are no numbers: which outline is which cannot be told."""

    def label(series: Series) -> Elements:
        roi = {
            0x30060022: ("IS", text(CANARY[:10])),
            0x30060024: ("UI", uid(series.frame)),
            0x30060026: ("LO", text("GTV")),
        }
        return _with(rtstruct(series), x30060020=sequence(roi))

    return _beside(folder, rng, label, "damaged no_outline damaged_contour", "pars|number|structure|outline")


@damaged
def rtstruct_of_canary_names(folder, rng):
    """Structure names are free text: they must not be repeated, neither in a reason nor in the index."""

    def label(series: Series) -> Elements:
        roi = {
            0x30060022: ("IS", text(1)),
            0x30060024: ("UI", uid(series.frame)),
            0x30060026: ("LO", text(f"../../{CANARY}")),
        }
        return _with(rtstruct(series), x30060020=sequence(roi))

    return _beside(folder, rng, label, "no_class", "structures|class")


@damaged
def rtstruct_of_an_unknown_instance(folder, rng):
    def label(series: Series) -> Elements:
        contour = {
            0x30060016: sequence({0x00081155: ("UI", uid(ABSENT))}),
            0x30060042: ("CS", text("CLOSED_PLANAR")),
            0x30060050: ("DS", decimal(*rectangle(series)[0].ravel())),
        }
        return _with(rtstruct(series), x30060039=sequence({0x30060040: sequence(contour), 0x30060084: ("IS", text(1))}))

    return _beside(folder, rng, label, "missing_instance missing_series", "image|instance")


@damaged
def rtstruct_file_cut(folder, rng):
    return _beside(
        folder, rng, lambda series: file_bytes(rtstruct(series))[:-60], "damaged", CUT,
    )  # fmt: skip


@damaged
def rtstruct_deeply_nested(folder, rng):
    def label(series: Series) -> Elements:
        return _with(rtstruct(series), x30060039=("", nested(50_000, True, 0x30060039, "SQ")))

    return _beside(folder, rng, label, "damaged no_outline", "nest|deep|pars|outline")
