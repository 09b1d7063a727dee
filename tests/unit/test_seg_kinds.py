"""SEG of every kind the issue names, written by highdicom: what is stored, how it is packed, and where frames lie."""

from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from foreign_seg import edited, foreign_seg
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless
from seg_series import SCHEME, SHAPE, make_series, random_labels

from monai_tl.dicom.segmentation_reading import read_segmentation
from monai_tl.errors import DicomError, LabelError
from monai_tl.labels import ClassSpec, LabelScheme

LIVER = LabelScheme(classes=(ClassSpec(name="liver"),))


@pytest.fixture
def reference(tmp_path):
    return make_series(tmp_path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seg.dcm"


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("maximum", [1, 100, 255])
def test_fractional_of_either_type_and_any_maximum(path, reference, kind, maximum):
    shares = np.random.default_rng(maximum).random((*SHAPE, 1))
    foreign_seg(path, shares, reference, "FRACTIONAL", ("liver",), fractional_type=kind, max_fractional_value=maximum)
    stored = np.around(shares[..., 0] * maximum)
    assert np.array_equal(read_segmentation(path, reference, LIVER)[0] == 1, 2 * stored >= maximum)


def test_a_maximum_of_nothing_is_refused(path, reference):
    foreign_seg(path, np.random.default_rng(0).random((*SHAPE, 1)), reference, "FRACTIONAL", ("liver",))
    edited(path, lambda dataset: setattr(dataset, "MaximumFractionalValue", 0))
    with pytest.raises(DicomError) as caught:
        read_segmentation(path, reference, LIVER)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("omit", [True, False])
def test_overlapping_segments_of_frames_that_fill_no_bytes(path, reference, omit):
    """7 x 9 pixels are 63 bits: all frames but the first begin within a byte."""
    masks = np.random.default_rng(1).random((*SHAPE, 3)) < 0.3
    masks[2] = False
    foreign_seg(path, masks.astype(np.uint8), reference, omit_empty_frames=omit)
    label, notes = read_segmentation(path, reference, SCHEME)
    assert np.array_equal(label, np.max(masks * np.array([1, 2, 3]), axis=-1))
    n_overlapping = int(np.sum(masks.sum(axis=-1) - 1, where=masks.sum(axis=-1) > 1))
    assert notes == (f"SEG: structures overlap in {n_overlapping} voxels; the one on top counts",)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("BINARY", ImplicitVRLittleEndian),
        ("BINARY", DeflatedExplicitVRLittleEndian),
        ("LABELMAP", RLELossless),
        ("LABELMAP", DeflatedExplicitVRLittleEndian),
        ("FRACTIONAL", RLELossless),
        ("FRACTIONAL", JPEGLSLossless),
    ],
)
def test_packed_in_any_way(path, reference, kind, syntax):
    labels = random_labels()
    content = labels if kind != "FRACTIONAL" else (labels[..., None] == [1, 2, 3]).astype(float)
    is_native = syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
    foreign_seg(path, content, reference, kind)
    if is_native:
        edited(path, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
    else:
        edited(path, lambda dataset: pack(dataset, syntax))
    assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_segmentation(path, reference, SCHEME)[0], labels)


def pack(dataset, syntax):
    """GDCM, which highdicom would take, ends the process on frames this small."""
    plugin = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls"}[syntax]
    dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)


def test_labelmap_of_sixteen_bits_with_a_palette(path, reference):
    numbers = (7, 300, 40_000)
    labels = random_labels()
    content = np.array([0, *numbers], dtype=np.uint16)[labels]
    foreign_seg(path, content, reference, "LABELMAP", numbers=numbers)

    def colour(dataset):
        assert dataset.BitsAllocated == 16
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        for element in (0x1101, 0x1102, 0x1103):
            dataset.add_new((0x0028, element), "US", [0, 0, 16])
            dataset.add_new((0x0028, element + 0x100), "OW", np.arange(1 << 16, dtype="<u2").tobytes())

    assert np.array_equal(read_segmentation(edited(path, colour), reference, SCHEME)[0], labels)


def test_segment_numbers_need_not_begin_at_one(path, reference):
    labels = random_labels()
    foreign_seg(path, labels, reference)
    numbers = {1: 9, 2: 4, 3: 70}

    def change(dataset):
        for item in dataset.SegmentSequence:
            item.SegmentNumber = numbers[item.SegmentNumber]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            item = frame.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = numbers[item.ReferencedSegmentNumber]

    assert np.array_equal(read_segmentation(edited(path, change), reference, SCHEME)[0], labels)


def test_what_all_frames_share_may_be_said_once_or_in_each(path, reference):
    labels = (random_labels() == 1).astype(np.uint8)
    foreign_seg(path, labels, reference, labels=("liver",))
    keywords = ("SegmentIdentificationSequence", "PixelMeasuresSequence", "PlaneOrientationSequence")

    def change(dataset):
        (shared,) = dataset.SharedFunctionalGroupsSequence
        for keyword in keywords:
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                setattr(frame, keyword, getattr(shared, keyword))
            delattr(shared, keyword)

    assert np.array_equal(read_segmentation(path, reference, LIVER)[0], labels)
    assert np.array_equal(read_segmentation(edited(path, change), reference, LIVER)[0], labels)


def test_two_frames_of_one_segment_on_one_slice_join(path, reference):
    first, second = (np.random.default_rng(seed).random(SHAPE) < 0.3 for seed in (0, 1))
    content = np.stack([first, second], axis=-1).astype(np.uint8)
    foreign_seg(path, content, reference, labels=("liver", "tumour"), omit_empty_frames=False)

    def change(dataset):
        dataset.SegmentSequence = dataset.SegmentSequence[:1]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1

    assert np.array_equal(read_segmentation(edited(path, change), reference, LIVER)[0] == 1, first | second)


def test_positions_a_hair_off_are_the_slices(path, reference):
    labels = random_labels()
    foreign_seg(path, labels, reference)
    rng = np.random.default_rng(0)

    def change(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [
                f"{float(value) + rng.uniform(-0.01, 0.01):.5f}" for value in position
            ]

    label, notes = read_segmentation(edited(path, change), reference, SCHEME)
    assert np.array_equal(label, labels)
    assert notes == ()


def test_frames_of_a_multi_frame_image_are_found_by_their_number(path, reference):
    """No positions; the image is one file, so only the frame number tells the slice."""
    labels = random_labels()
    foreign_seg(path, labels, reference, omit_empty_frames=False)
    n_slices = reference.n_slices
    # slice order is not frame order
    numbers = tuple(int(number) for number in np.random.default_rng(0).permutation(n_slices) + 1)
    whole = replace(reference, sop_instance_uids=("5.5.5",) * n_slices, frame_numbers=numbers)

    def change(dataset, with_number=True):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
            (source,) = frame.DerivationImageSequence[0].SourceImageSequence
            index = reference.sop_instance_uids.index(source.ReferencedSOPInstanceUID)
            source.ReferencedSOPInstanceUID = "5.5.5"
            if with_number:
                source.ReferencedFrameNumber = numbers[index]

    assert np.array_equal(read_segmentation(edited(path, change), whole, SCHEME)[0], labels)
    foreign_seg(path, labels, reference, omit_empty_frames=False)
    with pytest.raises(LabelError) as caught:
        read_segmentation(edited(path, lambda dataset: change(dataset, with_number=False)), whole, SCHEME)
    assert caught.value.code == "frame_position"


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: setattr(dataset, "DimensionOrganizationType", "TILED_FULL"),
        lambda dataset: setattr(dataset, "TotalPixelMatrixRows", 4000),
        lambda dataset: setattr(dataset, "ImageOrientationSlide", [0, 1, 0, 1, 0, 0]),
    ],
)
def test_slide_coordinates_are_refused_by_name(path, reference, change):
    foreign_seg(path, random_labels(), reference)
    with pytest.raises(DicomError, match="slide") as caught:
        read_segmentation(edited(path, change), reference, SCHEME)
    assert caught.value.code == "slide_coordinates"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda dataset: (setattr(dataset, "Rows", 65535), setattr(dataset, "Columns", 65535)), "too_large"),
        (lambda dataset: setattr(dataset, "Rows", 0), "too_large"),
        (lambda dataset: setattr(dataset, "Rows", 700), "damaged"),
        (lambda dataset: setattr(dataset, "BitsAllocated", 32), "damaged"),
        (lambda dataset: delattr(dataset, "PixelData"), "damaged"),
        (lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"), "damaged"),
    ],
)
def test_absurd_objects_are_refused_by_name(path, reference, change, code):
    foreign_seg(path, random_labels(), reference)
    with pytest.raises(DicomError) as caught:
        read_segmentation(edited(path, change), reference, SCHEME)
    assert caught.value.code == code


def test_absurd_frames_of_a_compressed_object_are_refused(path, reference):
    foreign_seg(path, random_labels(), reference, "LABELMAP")

    def change(dataset):
        pack(dataset, RLELossless)
        dataset.Rows, dataset.Columns = 4000, 4000

    with pytest.raises((DicomError, LabelError)) as caught:
        read_segmentation(edited(path, change), reference, SCHEME)
    assert caught.value.code in ("undecodable_pixels", "damaged")


def test_a_seg_far_away_is_refused_and_an_empty_one_is_not(path, reference):
    labels = random_labels()
    foreign_seg(path, labels, reference)

    def change(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            position[0] = float(position[0]) + 500

    with pytest.raises(LabelError) as caught:
        read_segmentation(edited(path, change), reference, SCHEME)
    assert caught.value.code == "outside"
    foreign_seg(path, np.zeros_like(labels), reference, omit_empty_frames=False)
    assert not read_segmentation(path, reference, SCHEME)[0].any()


def test_highdicom_reads_the_same(path, reference):
    """A second reader of the same files: its volume of each segment."""
    masks = np.random.default_rng(3).random((*SHAPE, 3)) < 0.3
    foreign_seg(path, masks.astype(np.uint8), reference)
    seg = highdicom.seg.segread(path)
    theirs = seg.get_pixels_by_source_instance(
        list(reference.sop_instance_uids), combine_segments=False, ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    for number, name in enumerate(("liver", "tumour", "vessel")):
        scheme = LabelScheme(classes=(ClassSpec(name=name),))
        assert np.array_equal(read_segmentation(path, reference, scheme)[0], theirs[..., number])


def test_frame_numbers_of_single_frame_images_do_no_harm(path, reference):
    labels = random_labels()
    foreign_seg(path, labels, reference)

    def change(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
            frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = 1
            # more than one source: the other one is no slice of the series
            other = Dataset()
            other.ReferencedSOPClassUID, other.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "7.7"
            frame.DerivationImageSequence[0].SourceImageSequence.insert(0, other)

    assert np.array_equal(read_segmentation(edited(path, change), reference, SCHEME)[0], labels)
