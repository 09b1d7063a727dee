"""``monai-tl convert`` on many kinds of series: what is one volume, what is several, what is none."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from convert_run import check_outcome, check_volumes, run_convert
from kinds_of_no_volume import NO_VOLUME
from kinds_of_one_volume import ONE_VOLUME
from kinds_of_several_volumes import SEVERAL_VOLUMES
from series_kinds import Expected
from series_writer import CT, MR, SeriesWriter
from world_fields import AXIAL, CORONAL, OBLIQUE, field

from monai_tl.dicom.deidentify import Pseudonyms, seeded_key


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")


@pytest.mark.parametrize("kind", ONE_VOLUME.entries, ids=lambda kind: kind.name)
def test_one_volume_stays_one(kind, tmp_path):
    kind.write(tmp_path / "in")
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out"), kind.volumes, kind.refusals)


@pytest.mark.parametrize("kind", SEVERAL_VOLUMES.entries, ids=lambda kind: kind.name)
def test_several_volumes_are_split_never_stacked(kind, tmp_path):
    kind.write(tmp_path / "in")
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out"), kind.volumes, kind.refusals)


@pytest.mark.parametrize("kind", NO_VOLUME.entries, ids=lambda kind: kind.name)
def test_no_volume_is_refused_by_name_with_its_numbers(kind, tmp_path):
    kind.write(tmp_path / "in")
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out"), kind.volumes, kind.refusals)


def test_many_kinds_in_one_folder_whatever_the_names_of_their_files(tmp_path):
    """Nothing of one series leaks into another; names and bytes of the results depend on the series alone."""
    kinds = [kind for kind in (*SEVERAL_VOLUMES.entries, *NO_VOLUME.entries) if not kind.has_choice]
    for number, kind in enumerate(kinds):
        kind.write(tmp_path / "in" / f"{number % 5}", number)
    first = run_convert(tmp_path / "in", tmp_path / "out")
    assert len(first.volumes) == sum(len(kind.volumes) for kind in kinds)
    assert len(first.rejected) == sum(len(kind.refusals) for kind in kinds)
    for number, kind in enumerate(kinds):
        series = Pseudonyms(seeded_key(0)).hash_uid(f"1.2.3.{number}.5")
        own = [entry for entry in first.volumes if entry["series"] == series]
        check_volumes(replace(first, volumes=own), kind.volumes, is_whole=not kind.refusals)
    (tmp_path / "renamed").mkdir()
    paths = sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    for name, place in enumerate(np.random.default_rng(0).permutation(len(paths))):
        shutil.copyfile(paths[place], tmp_path / "renamed" / f"{name:05d}")
    second = run_convert(tmp_path / "renamed", tmp_path / "out2")
    assert {entry["file"]: entry["part"] for entry in second.volumes} == {
        entry["file"]: entry["part"] for entry in first.volumes
    }
    for entry in first.volumes:
        assert (first.out / entry["file"]).read_bytes() == (second.out / entry["file"]).read_bytes()
    assert [(one["item"], one["code"]) for one in second.rejected] == [
        (one["item"], one["code"]) for one in first.rejected
    ]


def test_two_series_at_equal_places_in_one_folder_stay_apart(tmp_path):
    for number in (1, 2):
        writer = SeriesWriter(tmp_path / "in", number)
        writer.tag(StudyInstanceUID="1.2.3.1.1", FrameOfReferenceUID="1.2.3.1.9", PatientID="CANARY-1")
        writer.add(AXIAL, number)
    result = run_convert(tmp_path / "in", tmp_path / "out")
    first, second = result.volumes
    assert first["part"] == second["part"] == {}
    assert first["study"] == second["study"]
    assert first["series"] != second["series"]
    assert first["patient_key"] == second["patient_key"]
    means = sorted(float(result.values(entry).mean()) for entry in result.volumes)
    assert means == pytest.approx([float(field(AXIAL.points_lps(), part).mean()) for part in (1, 2)], abs=0.5)


def test_parts_of_a_series_share_its_names_and_not_their_own(tmp_path):
    writer = SeriesWriter(tmp_path / "in", base=MR)
    for echo in range(3):
        writer.add(AXIAL, echo, tags={"EchoTime": 5.0 * (echo + 1)})
    result = run_convert(tmp_path / "in", tmp_path / "out")
    assert len({entry["case_id"] for entry in result.volumes}) == 3
    assert len({entry["file"] for entry in result.volumes}) == 3
    for key in ("study", "series", "patient_key"):
        assert len({entry[key] for entry in result.volumes}) == 1
    assert {entry["part"]["echo_time_ms"] for entry in result.volumes} == {"5", "10", "15"}
    assert [entry["n_files"] for entry in result.volumes] == [8, 8, 8]
    # the same again, from files in another order: same names, same bytes
    again = SeriesWriter(tmp_path / "again", base=MR)
    for echo in (2, 0, 1):
        for k in (5, 2, 7, 0, 1, 3, 6, 4):
            count = echo * 8 + k + 1
            again.add(
                AXIAL,
                echo,
                slices=[k],
                tags={"EchoTime": 5.0 * (echo + 1), "SOPInstanceUID": f"{again.series}.{count}"},
            )
    repeat = run_convert(tmp_path / "again", tmp_path / "out2")
    for entry in result.volumes:
        assert (result.out / entry["file"]).read_bytes() == (repeat.out / entry["file"]).read_bytes()


@pytest.mark.parametrize("grid", [AXIAL, CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
@pytest.mark.parametrize("n_slices", [1, 2])
def test_one_or_two_slices_keep_their_place(tmp_path, grid, n_slices):
    """A single slice has no step: its thickness stands for it."""
    few = grid.with_slices(n_slices)
    SeriesWriter(tmp_path / "in").add(few, tags={"SliceThickness": 2.5})
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out"), [Expected(few)], [])


def test_duplicates_are_counted_and_dropped(tmp_path):
    writer = SeriesWriter(tmp_path / "in")
    for path in writer.add(AXIAL)[:3]:
        for name in ("b", "c"):
            copy = writer.folder / name / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    result = run_convert(tmp_path / "in", tmp_path / "out")
    check_outcome(result, [Expected(AXIAL, note="duplicate")], [])
    assert any("6" in note for note in result.volumes[0]["notes"] if "duplicate" in note)


@pytest.mark.parametrize("grid", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("base", [CT, MR], ids=["CT", "MR"])
def test_repeats_in_any_order_of_files_and_numbers(tmp_path, base, grid):
    """Slices of two repeats dealt out at random: the volumes are the same as when written in order."""
    writer = SeriesWriter(tmp_path / "in", base=base)
    rng = np.random.default_rng(5)
    for part, k in rng.permutation([(part, k) for part in range(2) for k in range(8)]):
        writer.add(grid, int(part), slices=[int(k)], tags={"AcquisitionNumber": int(part) + 1})
    check_outcome(run_convert(tmp_path / "in", tmp_path / "out"), [Expected(grid, 0), Expected(grid, 1)], [])


def test_a_gap_is_told_for_the_place_where_it_is(tmp_path):
    """The number of the slice moves with the gap."""
    for gap in range(1, 9):
        writer = SeriesWriter(tmp_path / f"in{gap}")
        writer.add(replace(AXIAL.with_slices(10), step=(0, 0, 1.75)), slices=[k for k in range(10) if k != gap])
        (only,) = run_convert(tmp_path / f"in{gap}", tmp_path / f"out{gap}").rejected
        assert only["code"] == "missing_slice"
        assert f"after slice {gap} of 9" in only["reason"]
        assert "3.50 mm" in only["reason"]
        assert "1.75 mm" in only["reason"]
