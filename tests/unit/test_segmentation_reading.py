"""SEG objects of other makers: fractional, labelmap, overlapping, sparse, on other grids, on the wrong image."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from foreign_seg import edited, foreign_seg
from seg_series import AFFINES, SCHEME, SHAPE, make_series, random_labels, write

from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.errors import DicomError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme


def scheme_of(*structures):
    return LabelScheme(
        classes=tuple(ClassSpec(name=f"class{k}", structures=(text,)) for k, text in enumerate(structures))
    )


@pytest.fixture
def reference(tmp_path):
    return make_series(tmp_path)


@pytest.fixture
def tmp_seg(tmp_path):
    return tmp_path / "seg.dcm"


def test_fractional_is_inside_from_one_half(tmp_seg, reference):
    shares = np.random.default_rng(0).random((*SHAPE, 1))
    foreign_seg(tmp_seg, shares, reference, "FRACTIONAL", ("liver",))
    found, _ = read_segmentation(tmp_seg, reference, SCHEME)
    stored = np.rint(shares[..., 0] * 255)
    assert np.array_equal(found, stored >= 127.5)


@pytest.mark.parametrize("omit", [True, False])
def test_labelmap(tmp_seg, reference, omit):
    labels = random_labels()
    foreign_seg(tmp_seg, labels, reference, "LABELMAP", omit_empty_frames=omit)
    found, notes = read_segmentation(tmp_seg, reference, SCHEME)
    assert np.array_equal(found, labels)
    assert notes == ()


def test_later_class_wins_where_segments_overlap(tmp_seg, reference):
    masks = np.random.default_rng(1).random((*SHAPE, 3)) < 0.4
    foreign_seg(tmp_seg, masks.astype(np.uint8), reference)
    found, notes = read_segmentation(tmp_seg, reference, SCHEME)
    expected = np.max(masks * np.array([1, 2, 3]), axis=-1)
    assert np.array_equal(found, expected)
    assert "overlap" in notes[0]
    # the order of the scheme decides, not that of the segments
    turned, _ = read_segmentation(tmp_seg, reference, scheme_of("vessel", "liver"))
    assert np.array_equal(turned, np.where(masks[..., 0], 2, np.where(masks[..., 2], 1, 0)))


def test_segments_are_found_by_code_and_others_skipped(tmp_seg, reference):
    labels = random_labels()
    foreign_seg(tmp_seg, labels, reference)
    found, notes = read_segmentation(tmp_seg, reference, scheme_of("SCT|10200002"))
    assert np.array_equal(found, labels == 2)
    assert "2 segments are not asked for" in notes[0]
    with pytest.raises(LabelError, match="none of the 3 structures") as caught:
        read_segmentation(tmp_seg, reference, scheme_of("spleen"))
    assert caught.value.code == "no_class"


@pytest.mark.parametrize("kind", AFFINES)
def test_frames_without_position_follow_their_instance(tmp_path, kind):
    reference = make_series(tmp_path, kind)
    labels = random_labels()

    def change(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    path = edited(write(tmp_path / "seg.dcm", labels, reference), change)
    assert np.array_equal(read_segmentation(path, reference, SCHEME)[0], labels)


def test_frames_without_instance_follow_their_position(tmp_seg, reference):
    labels = random_labels()

    def change(dataset):
        del dataset.ReferencedSeriesSequence
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.DerivationImageSequence
        dataset.PerFrameFunctionalGroupsSequence.reverse()
        frames = dataset.pixel_array[::-1]
        dataset.PixelData = pydicom.pixels.pack_bits(frames.ravel())

    path = edited(write(tmp_seg, labels, reference), change)
    assert np.array_equal(read_segmentation(path, reference, SCHEME)[0], labels)


def test_another_image_is_refused(tmp_path, tmp_seg, reference):
    write(tmp_seg, random_labels(), reference)
    with pytest.raises(LabelError, match="another series") as caught:
        read_segmentation(tmp_seg, make_series(tmp_path, name="other"), SCHEME)
    assert caught.value.code == "missing_series"
    with pytest.raises(LabelError, match="frame of reference") as caught:
        read_segmentation(tmp_seg, replace(reference, frame_of_reference_uid="1.2.3"), SCHEME)
    assert caught.value.code == "frame_of_reference"


def test_an_image_without_frame_of_reference_gets_a_seg_all_the_same(tmp_seg, reference):
    lost = replace(reference, frame_of_reference_uid=None)
    labels = random_labels()
    write(tmp_seg, labels, lost)
    assert np.array_equal(read_segmentation(tmp_seg, lost, SCHEME)[0], labels)


def test_finer_grid_is_resampled_to_the_nearest(tmp_path, tmp_seg):
    """The reference is every second pixel and slice of the grid the label was drawn on: the exact answer is known."""
    fine = make_series(tmp_path)
    labels = random_labels()
    write(tmp_seg, labels, fine)
    coarse = replace(
        fine,
        sop_instance_uids=fine.sop_instance_uids[1::2],
        positions_lps=fine.positions_lps[1::2] + 2 * 0.8 * fine.row_direction + 0.7 * fine.column_direction,
        paths=fine.paths[1::2],
        pixel_spacing_mm=(1.4, 1.6),
        rows=3,
        columns=3,
    )
    found, notes = read_segmentation(tmp_seg, coarse, SCHEME)
    assert np.array_equal(found, labels[1::2, 1::2, 2:8:2])
    assert "another grid" in notes[-1]


def test_flipped_grid_is_the_same_label(tmp_path, tmp_seg, reference):
    labels = random_labels()
    write(tmp_seg, labels, reference)
    flipped = replace(
        reference,
        positions_lps=reference.positions_lps[::-1] + 8 * 0.8 * reference.row_direction,
        row_direction=-reference.row_direction,
        sop_instance_uids=reference.sop_instance_uids[::-1],
    )
    assert np.array_equal(read_segmentation(tmp_seg, flipped, SCHEME)[0], labels[::-1, :, ::-1])


def test_label_beyond_the_image_is_cut_off(tmp_seg, reference):
    labels = random_labels()
    write(tmp_seg, labels, reference)
    part = replace(
        reference,
        sop_instance_uids=reference.sop_instance_uids[2:5],
        positions_lps=reference.positions_lps[2:5],
        paths=reference.paths[2:5],
    )
    assert np.array_equal(read_segmentation(tmp_seg, part, SCHEME)[0], labels[2:5])


def test_uneven_foreign_slices_are_refused(tmp_seg, reference):
    def change(dataset):
        position = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
        position[2] = float(position[2]) + 1.0

    path = edited(write(tmp_seg, random_labels(), reference), change)
    with pytest.raises(LabelError, match="evenly spaced") as caught:
        read_segmentation(path, reference, SCHEME)
    assert caught.value.code == "frame_position"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda dataset: setattr(dataset, "NumberOfFrames", 2_000_000_000), "too_large"),
        (lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(), "damaged"),
        (lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:4]), "damaged"),
        (lambda dataset: delattr(dataset, "SegmentSequence"), "not_seg"),
        (lambda dataset: setattr(dataset, "SegmentationType", "OTHER"), "not_seg"),
    ],
)
def test_damaged_objects_are_refused(tmp_seg, reference, change, code):
    path = edited(write(tmp_seg, random_labels(), reference), change)
    with pytest.raises(DicomError) as caught:
        read_segmentation(path, reference, SCHEME)
    assert caught.value.code == code
