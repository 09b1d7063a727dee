"""Each damaged kind in a folder with good series: the good come out, the bad is named, and nothing else happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import damaged
import numpy as np
import pytest
from conversion_outcome import faults, names_and_leaks, tree
from conversion_server import ConversionServer, Finished
from damage import KINDS
from damaged_folders import make_readable
from dicom_bytes import TOKEN, Grid, Series, file_bytes, new_series, rectangle_label, rtstruct, save, write_series

from monai_tl.dicom.deidentify import create_key

MAX_BYTES, MAX_SECONDS = 1 << 30, 60.0
# the deep folder makes OUT/../../../../x a place that is watched
OUT = Path("results/a/b/c")
SAMPLE = (
    "foreign_pdf", "header_cut", "deflate_cut", "nested_undefined", "truncated_pixels_in_one_slice",
    "syntax_unknown", "rows_and_columns_65535", "position_missing", "slice_missing", "one_slice_not_parallel",
    "enhanced_fewer_items_than_frames", "seg_of_another_frame_of_reference", "rtstruct_outline_of_nan",
    "series_uid_climbs", "link_dangling",
)  # fmt: skip
"""Kinds that go through the ingest stage as well, one or more of each sort."""
HEAVY = (
    "deflate_bomb_in_the_pixels", "deflate_bomb_of_empty_elements", "seg_deflate_bomb",
    "rtstruct_outline_of_ten_million_points", "rtstruct_of_three_thousand_outlines", "rle_bomb_that_agrees",
)  # fmt: skip
"""A second or more each: left out where all are together, as each has its own run."""
COMMAND_THAT_TELLS_ITS_PEAK = """
import resource
from monai_tl.cli import main
try:
    main()
finally:
    # not ru_maxrss of this process: it begins with that of the one that started it
    own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak", max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024)
"""


@pytest.fixture(scope="module")
def server():
    found = ConversionServer()
    yield found
    found.close()


def good_series() -> tuple[Series, Series]:
    rng = np.random.default_rng(1)
    return new_series(rng), new_series(rng)


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    """A plain CT series and one with an RTSTRUCT."""
    folder = tmp_path_factory.mktemp("good")
    plain, labelled = good_series()
    write_series(folder / "plain", plain.slices)
    write_series(folder / "labelled", labelled.slices)
    save(folder / "labelled" / "label.dcm", file_bytes(rtstruct(labelled)))
    return folder


@pytest.fixture
def sandbox(tmp_path, good_folder):
    box = tmp_path / "box"
    for name in ("cwd", "home", "tmp", "logs", "outside", OUT):
        (box / name).mkdir(parents=True)
    shutil.copytree(good_folder, box / "in")
    # beside the input: comes out only if a link to a folder above is followed
    write_series(box / "outside", new_series(np.random.default_rng(2)).slices)
    create_key(box / "home" / "pseudonym.key", seed=0)
    (box / "home" / "labels.yaml").write_text("classes: [{name: GTV}]\n")
    yield box
    make_readable(box / "in")


def good_grids() -> list[Grid]:
    plain, labelled = good_series()
    return [plain.grid(), labelled.grid(rectangle_label(labelled))]


def arguments_of(box: Path) -> list[str]:
    home = box / "home"
    options = ["--labels", str(home / "labels.yaml"), "--key-file", str(home / "pseudonym.key")]
    return ["convert", str(box / "in"), str(box / OUT), *options]


def convert(server: ConversionServer, box: Path) -> Finished:
    return server.run(arguments_of(box), box)


def check_bounds(finished: Finished) -> None:
    assert finished.seconds < MAX_SECONDS
    assert finished.peak_bytes < MAX_BYTES, f"{finished.peak_bytes >> 20} MiB"


def check_silence(finished: Finished) -> None:
    told = finished.stdout + finished.stderr
    assert "Traceback" not in told, told
    assert "Warning" not in told, told
    assert "CANARY" not in told
    assert TOKEN not in told


def outside(box: Path) -> tuple[dict[bytes, object], list[str]]:
    """Everything but OUT and the logs; and what a path taken from a file would make in the machine's own folder."""
    return tree(box, ("results", "logs")), [name for name in os.listdir("/tmp") if TOKEN in name]


@pytest.mark.parametrize("name", list(KINDS))
def test_the_good_come_out_and_the_bad_is_named(name, server, sandbox):
    outcomes = damaged.make(name, sandbox / "in" / "damaged")
    before = outside(sandbox)
    finished = convert(server, sandbox)
    check_bounds(finished)
    check_silence(finished)
    assert finished.exit_code == 0, finished.stderr
    found = faults(sandbox / OUT, outcomes, good_grids())
    assert not found, "\n".join(found)
    assert outside(sandbox) == before


@pytest.mark.parametrize("name", SAMPLE)
def test_the_ingest_stage_refuses_the_same(name, server, sandbox):
    damaged.make(name, sandbox / "in" / "damaged")
    convert(server, sandbox)
    refused = json.loads((sandbox / OUT / "rejected.json").read_text())["rejected"]
    arguments = [str(sandbox / "in"), str(sandbox / "results"), str(sandbox / "home" / "pseudonym.key")]
    finished = server.run(arguments, sandbox, call="ingested_folder:run")
    check_bounds(finished)
    check_silence(finished)
    assert finished.exit_code == 0
    found = json.loads((sandbox / "results" / "refused.json").read_text())
    volumes = json.loads((sandbox / OUT / "index.json").read_text())["volumes"]
    assert sorted(found["cases"]) == sorted(one["case_id"] for one in volumes)

    def facts(rejected):
        return sorted((one["item"], one["kind"], one["code"], one["reason"], one["n_files"]) for one in rejected)

    assert facts(found["rejected"]) == facts(refused)


@pytest.mark.parametrize("name", ["foreign_pdf", "slice_missing"])
def test_nothing_converted_is_exit_code_3_with_the_reasons_written(name, server, sandbox):
    shutil.rmtree(sandbox / "in")
    outcomes = damaged.make(name, sandbox / "in" / "damaged")
    finished = convert(server, sandbox)
    check_silence(finished)
    assert finished.exit_code == 3
    assert faults(sandbox / OUT, outcomes, []) == []


def test_names_of_structures_that_identify_are_not_classes(server, sandbox):
    """Without a MAP each structure is a class by its own name; this one is called as the patient is, and a path."""
    series = damaged.make("rtstruct_of_canary_names", sandbox / "in" / "damaged")[0][0]
    arguments = [text for text in arguments_of(sandbox) if "labels" not in text]
    finished = server.run(arguments, sandbox)
    check_silence(finished)
    assert finished.exit_code == 0
    label = rectangle_label(good_series()[0])
    found = faults(sandbox / OUT, [(Grid(series.values, series.affine_lps, label),)], good_grids())
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_bombs_do_not_add_up(server, sandbox):
    for number in range(3):
        damaged.make("deflate_bomb_in_the_header", sandbox / "in" / str(number), seed=number)
    check_bounds(convert(server, sandbox))


def test_all_kinds_in_one_folder(sandbox):
    """The command as users start it, with as many processes as it likes; kinds may meet each other here."""
    for name in KINDS:
        if name not in HEAVY:
            damaged.make(name, sandbox / "in" / name)
    before = outside(sandbox)
    environment = {**os.environ, "HOME": str(sandbox / "home"), "TMPDIR": str(sandbox / "tmp")}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_THAT_TELLS_ITS_PEAK, *arguments_of(sandbox)],
        cwd=sandbox / "cwd", env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    check_silence(Finished(done.returncode, 0.0, 0, done.stdout, done.stderr))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < MAX_SECONDS
    assert int(done.stdout.split("peak")[1]) < MAX_BYTES
    assert names_and_leaks(sandbox / OUT) == []
    assert [fault for fault in faults(sandbox / OUT, [()], good_grids()) if "good ones first" in fault] == []
    assert outside(sandbox) == before
