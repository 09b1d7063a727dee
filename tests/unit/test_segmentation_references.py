"""What a DICOM SEG refers to: each source instance, and of a multi-frame source each frame; volumes of one series."""

from __future__ import annotations

import dataclasses

import highdicom
import numpy as np
import pydicom
import pytest
from seg_series import IDENTITY, SCHEME, SHAPE, make_series, random_labels, write
from seg_sources import (
    ECHOES,
    ENHANCED_MR,
    MR,
    N_SLICES,
    frames_of,
    geometries_of,
    position_texts,
    write_multiframe,
    write_two_echoes,
)
from seg_validation import table_faults

from monai_tl.dicom.segmentation import read_segmentation
from monai_tl.errors import DicomError


def closed_form(geometry, shift: int = 0) -> np.ndarray:
    """(K, rows, columns) 0 to 3; the second slice has nothing, and class 3 is on one slice only."""
    k, r, c = np.indices((geometry.n_slices, geometry.rows, geometry.columns))
    labels = ((2 * k + r * c + shift) % 3).astype(np.uint8)
    labels[1] = 0
    labels[3][(r[3] + c[3]) % 4 == 0] = 3
    return labels


@pytest.fixture
def multiframe(tmp_path):
    frames = write_multiframe(tmp_path / "source/object.dcm")
    return frames, geometries_of(tmp_path / "source")


def test_each_frame_names_its_frame_of_a_multiframe_source(tmp_path, multiframe):
    frames, geometries = multiframe
    assert len(geometries) == len(ECHOES)
    seen = set()
    for number, geometry in enumerate(geometries):
        labels = closed_form(geometry, number)
        path = write(tmp_path / f"seg{number}.dcm", labels, geometry, read_back=True)
        drawn = np.zeros_like(labels)
        echoes = set()
        for frame in frames_of(path):
            assert frame.source == (ENHANCED_MR, geometry.sop_instance_uids[0])
            # the file's own list says which slice that frame is
            echo, k = frames[frame.source_frame - 1]
            echoes.add(echo)
            assert [float(text) for text in frame.position] == [float(text) for text in position_texts(k)]
            drawn[k][frame.mask] = frame.segment
        # a volume's labels name frames of its own echo alone; slices lie along the normal, as the generator has them
        assert np.array_equal(drawn, labels)
        assert len(echoes) == 1
        seen |= echoes
    assert seen == set(ECHOES)


@pytest.mark.parametrize("identity", ["pseudonymous", "source"])
def test_a_multiframe_source_is_one_instance_in_the_references(tmp_path, multiframe, identity):
    frames, (geometry, _) = multiframe
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", closed_form(geometry), geometry, identity))
    source = pydicom.dcmread(geometry.paths[0])
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    (series,) = dataset.ReferencedSeriesSequence
    (instance,) = series.ReferencedInstanceSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert instance.ReferencedSOPClassUID == ENHANCED_MR
    assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID
    (image,) = dataset.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    # all frames of the volume, the one without a label too, and none of the other echo
    echo = {frames[number - 1][0] for number in image.ReferencedFrameNumber}
    assert len(echo) == 1
    assert list(image.ReferencedFrameNumber) == [n for n, (one, _) in enumerate(frames, start=1) if one in echo]
    assert str(dataset.PatientName) == (IDENTITY["PatientName"] if identity == "source" else "case-0123456789ab")


def test_multiframe_labels_come_back(tmp_path, multiframe):
    for number, geometry in enumerate(multiframe[1]):
        labels = closed_form(geometry, number)
        path = write(tmp_path / "seg.dcm", labels, geometry)
        found, notes = read_segmentation(path, geometry, SCHEME)
        assert np.array_equal(found, labels)
        assert notes == ()
        seg = highdicom.seg.segread(path)
        pixels = seg.get_pixels_by_source_frame(
            geometry.sop_instance_uids[0],
            list(geometry.frame_numbers),
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(pixels, labels)


def test_a_volume_of_several_multiframe_files(tmp_path):
    """One file a part of the slices, as some scanners write long series."""
    reference = make_series(tmp_path)
    uids = tuple(reference.sop_instance_uids[k // 3] for k in range(6))
    geometry = dataclasses.replace(
        reference, sop_instance_uids=uids, frame_numbers=(3, 2, 1, 1, 2, 3), sop_class_uid=ENHANCED_MR
    )
    labels = random_labels()
    path = write(tmp_path / "seg.dcm", labels, geometry)
    where = {(geometry.sop_instance_uids[k], geometry.frame_numbers[k]): k for k in range(6)}
    assert len(where) == 6
    drawn = np.zeros(SHAPE, np.uint8)
    for frame in frames_of(path):
        drawn[where[frame.source[1], frame.source_frame]][frame.mask] = frame.segment
    assert np.array_equal(drawn, labels)
    dataset = pydicom.dcmread(path)
    named = [(item.ReferencedSOPInstanceUID, list(item.ReferencedFrameNumber)) for item in dataset.SourceImageSequence]
    assert named == [(uids[0], [1, 2, 3]), (uids[3], [1, 2, 3])]
    assert np.array_equal(read_segmentation(path, geometry, SCHEME)[0], labels)


def test_every_instance_is_referenced_with_and_without_a_label_voxel(tmp_path):
    reference = make_series(tmp_path, "tilted")
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 1:3, 4:6] = 1
    labels[4, 0, 0] = 3
    path = write(tmp_path / "seg.dcm", labels, reference)
    dataset = pydicom.dcmread(path)
    (series,) = dataset.ReferencedSeriesSequence
    for sequence in (series.ReferencedInstanceSequence, dataset.SourceImageSequence):
        assert [item.ReferencedSOPInstanceUID for item in sequence] == list(reference.sop_instance_uids)
        assert {str(item.ReferencedSOPClassUID) for item in sequence} == {reference.sop_class_uid}
        assert not any("ReferencedFrameNumber" in item for item in sequence)
    found = {(frame.segment, frame.source[1], frame.source_frame) for frame in frames_of(path)}
    assert found == {(1, reference.sop_instance_uids[2], None), (3, reference.sop_instance_uids[4], None)}


def test_a_frame_says_what_it_was_made_for_and_that_places_are_kept(tmp_path):
    dataset = pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(), make_series(tmp_path)))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (derivation,) = frame.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        assert derivation.DerivationCodeSequence[0].CodeValue == "113076"
        assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert source.SpatialLocationsPreserved == "YES"


def test_volumes_split_from_a_series_refer_to_their_own_instances_alone(tmp_path):
    uids = write_two_echoes(tmp_path / "source")
    geometries = geometries_of(tmp_path / "source")
    assert len(geometries) == len(ECHOES)
    labels = closed_form(geometries[0])
    named, objects = [], []
    for number, geometry in enumerate(geometries):
        path = write(tmp_path / f"seg{number}.dcm", labels, geometry)
        objects.append(pydicom.dcmread(path))
        (series,) = objects[-1].ReferencedSeriesSequence
        named.append([str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence])
        assert {frame.source for frame in frames_of(path)} <= {(MR, uid) for uid in named[-1]}
        assert np.array_equal(read_segmentation(path, geometry, SCHEME)[0], labels)
    by_echo = [[uids[echo, k] for k in range(N_SLICES)] for echo in ECHOES]
    assert sorted(named) == sorted(by_echo)
    assert_told_apart(objects)


def test_volumes_split_from_one_multiframe_file_are_told_apart(tmp_path, multiframe):
    """The same labels at the same places of the same instance: only the frames differ."""
    labels = closed_form(multiframe[1][0])
    paths = [write(tmp_path / f"seg{n}.dcm", labels, geometry) for n, geometry in enumerate(multiframe[1])]
    assert_told_apart([pydicom.dcmread(path) for path in paths])


def assert_told_apart(objects) -> None:
    first, second = objects
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    organizations = [one.DimensionOrganizationSequence[0]["DimensionOrganizationUID"].value for one in objects]
    assert organizations[0] != organizations[1]


def test_a_series_holds_one_frame_of_reference(tmp_path):
    """Parts of one series may lie in two; the SEGs' series may not."""
    reference = make_series(tmp_path)
    other = dataclasses.replace(reference, frame_of_reference_uid="2.25.77")
    objects = [pydicom.dcmread(write(tmp_path / "seg.dcm", random_labels(), one)) for one in (reference, other)]
    assert objects[0].SeriesInstanceUID != objects[1].SeriesInstanceUID
    assert [one.FrameOfReferenceUID for one in objects] == [reference.frame_of_reference_uid, "2.25.77"]


def test_a_source_without_study_series_and_frame_is_given_some(tmp_path):
    """Anonymised files lack them; two such sources must not become one."""
    found = []
    for name in ("one", "two"):
        reference = make_series(tmp_path, name=name)
        bare = dataclasses.replace(
            reference, study_instance_uid="", series_instance_uid="", frame_of_reference_uid=None
        )
        path = write(tmp_path / "seg.dcm", random_labels(), bare, read_back=True)
        assert table_faults(path) == []
        dataset = pydicom.dcmread(path)
        (series,) = dataset.ReferencedSeriesSequence
        named = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
        assert named == list(reference.sop_instance_uids)
        found += [dataset.StudyInstanceUID, dataset.FrameOfReferenceUID, series.SeriesInstanceUID]
        assert np.array_equal(
            highdicom.seg.segread(path).get_pixels_by_source_instance(
                named, combine_segments=True, assert_missing_frames_are_empty=True
            ),
            random_labels(),
        )
    assert len(set(found)) == 6
    assert all(uid.startswith("2.25.") for uid in found)


@pytest.mark.parametrize("change", [{"sop_class_uid": ""}, {"sop_instance_uids": ("2.25.1", "", *"345678")[:6]}])
def test_images_nothing_can_refer_to_are_refused(tmp_path, change):
    reference = dataclasses.replace(make_series(tmp_path), **change)
    with pytest.raises(DicomError, match="no SEG can refer to them") as caught:
        write(tmp_path / "seg.dcm", random_labels(), reference)
    assert caught.value.code == "no_instance_uid"
    assert not (tmp_path / "seg.dcm").exists()


def test_any_class_of_image_can_be_a_source(tmp_path):
    """A private one, which no table of the standard has."""
    reference = dataclasses.replace(make_series(tmp_path), sop_class_uid="1.3.46.670589.11.0.0.12.1")
    labels = random_labels()
    path = write(tmp_path / "seg.dcm", labels, reference)
    assert {frame.source[0] for frame in frames_of(path)} == {reference.sop_class_uid}
    assert np.array_equal(read_segmentation(path, reference, SCHEME)[0], labels)


def test_what_does_not_read_back_is_not_left_behind(tmp_path, monkeypatch):
    reference = make_series(tmp_path)
    monkeypatch.setattr("monai_tl.dicom.segmentation.read_segmentation", lambda *_: (np.zeros(SHAPE, np.uint8), ()))
    with pytest.raises(DicomError, match="does not read back") as caught:
        write(tmp_path / "seg.dcm", random_labels(), reference, read_back=True)
    assert caught.value.code == "round_trip"
    assert not (tmp_path / "seg.dcm").exists()
    # unasked, it is not read
    assert write(tmp_path / "seg.dcm", random_labels(), reference).exists()
