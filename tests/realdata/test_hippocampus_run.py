"""The whole way on real hippocampi: DICOM MR and SEG in, hippodeep tuned and judged against its twin, SEG out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
import yaml

from monai_tl.config import parse_params
from monai_tl.dicom.segmentation import write_segmentation
from monai_tl.dicom.write import SeriesInfo, derive_uid, write_series
from monai_tl.files import read_json, write_json
from monai_tl.geometry import affine_lps_to_ras, reorient_to_ras
from monai_tl.labels import ClassSpec, LabelScheme

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
HIPPOCAMPUS = SHARED / "data" / "hippocampus"
N_TRAIN, N_TEST = 16, 12
CLASSES = (
    ClassSpec(name="anterior", type="SCT|5366008|Hippocampus", structures=("anterior",)),
    ClassSpec(name="posterior", type="SCT|5366008|Hippocampus", structures=("posterior",)),
)
PARAMS = {
    "ingest": {
        "source": "data/dicom",
        "classes": [spec.model_dump(mode="json") for spec in CLASSES],
        "max_rejected_fraction": 0.0,
    },
    "split": {"n_folds": 8, "test_ids_file": "data/test.json"},
    # about the size of a case; at the published minimum of 48 x 72 x 64 a step costs three times as much
    "plan": {"source": "sources/hippodeep", "patch_size_vox": [36, 52, 36]},
    "finetune": {
        "strategy": "lp_ft",
        "max_steps": 150,
        "head_steps": 25,
        "batch_size": 1,
        "average_power": 6,
        "learning_rate": 0.001,
        "head_learning_rate": 0.02,
        "schedule": "constant",
        "validate_every": 20,
        "patience": 5,
    },
    "evaluate": {"surface_tolerance_mm": 1.0},
}


def cases() -> list[Path]:
    """28 cases spread over the data set and so over its three intensity families."""
    paths = sorted((HIPPOCAMPUS / "images").glob("*.nii.gz"))
    return paths[:: len(paths) // (N_TRAIN + N_TEST)][: N_TRAIN + N_TEST]


def write_study(path: Path, folder: Path) -> None:
    """One NIfTI case as a DICOM MR series with its label as DICOM SEG."""
    image = nib.load(path)
    values = np.asarray(image.dataobj, dtype=np.float64)
    label = np.asarray(nib.load(HIPPOCAMPUS / "labels" / path.name).dataobj).astype(np.uint8)
    number = path.name.split("_")[1].split(".")[0]
    info = SeriesInfo(
        modality="MR",
        study_uid=derive_uid("hippocampus", number, "study"),
        series_uid=derive_uid("hippocampus", number, "series"),
        frame_of_reference_uid=derive_uid("hippocampus", number, "frame"),
        attributes={"PatientID": f"H{number}", "PatientName": f"Hippo^{number}", "Manufacturer": "Decathlon"},
    )
    slope = max(1.0, float(values.max()) / 30_000.0)
    geometry = write_series(
        folder / "mr", values.transpose(2, 1, 0), affine_lps_to_ras(image.affine), info, slope=slope
    )
    write_segmentation(
        folder / "seg.dcm", np.ascontiguousarray(label.transpose(2, 1, 0)), geometry, LabelScheme(classes=CLASSES),
        identity="source", pseudonym="", uid_key=lambda text: derive_uid("test", number, text), algorithm=None,
    )  # fmt: skip


def command(*arguments: str, cwd: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "test",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "test@localhost",
    }
    subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, env=environment, check=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HIPPOCAMPUS.is_dir():
        pytest.skip(f"{HIPPOCAMPUS} is absent; set MONAI_TL_SHARED")
    workspace = tmp_path_factory.mktemp("run") / "hippocampus"
    key = workspace.parent / "key"
    command("monai_tl", "key", str(key), "--demo-seed", "0", cwd=ROOT)
    command("monai_tl", "init", str(workspace), cwd=ROOT)
    shutil.rmtree(workspace / "data", ignore_errors=True)
    chosen = cases()
    for path in chosen:
        write_study(path, workspace / "data" / "dicom" / path.name.split(".")[0])
    source = workspace / "sources" / "hippodeep"
    source.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "hippodeep" / "card.yaml", source)
    shutil.copy(SHARED / "weights" / "hippodeep" / "weights.safetensors", source)
    params = parse_params(PARAMS | {"ingest": PARAMS["ingest"] | {"key_file": str(key)}})
    (workspace / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    command("monai_tl", "init", "--refresh", str(workspace), cwd=ROOT)
    # the test set is chosen by case id, and ids are known after ingest
    command("monai_tl", "stage", "ingest", cwd=workspace)
    ids = sorted(read_json(workspace / "artifacts" / "cases" / "dataset.json")["case_ids"])
    assert len(ids) == N_TRAIN + N_TEST
    write_json(workspace / "data" / "test.json", ids[:N_TEST])
    command("dvc", "repro", "--quiet", cwd=workspace)
    return workspace


def test_ingest_keeps_values_and_labels(finished: Path) -> None:
    """Each case is found again among the originals, by its label and its values."""
    originals = []
    for path in cases():
        image = nib.load(path)
        label = np.asarray(nib.load(HIPPOCAMPUS / "labels" / path.name).dataobj).astype(np.uint8)
        values, _ = reorient_to_ras(np.asarray(image.dataobj, dtype=np.float64), image.affine)
        originals.append((reorient_to_ras(label, image.affine)[0], values))
    folders = sorted((finished / "artifacts" / "cases").glob("case-*"))
    assert len(folders) == len(originals)
    for folder in folders:
        label = np.asarray(nib.load(folder / "label.nii.gz").dataobj)
        image = np.asarray(nib.load(folder / "image.nii.gz").dataobj, dtype=np.float64)
        matches = [values for other, values in originals if np.array_equal(other, label)]
        assert len(matches) == 1
        # at most half a stored step away
        assert np.abs(matches[0] - image).max() <= 0.51 * max(1.0, matches[0].max() / 30_000.0)


def test_fine_tuning_reaches_the_known_dice_and_gains_over_its_twin(finished: Path) -> None:
    metrics = read_json(finished / "reports" / "metrics.json")
    transfer = metrics["arms"]["transfer"]
    print(metrics["verdict"], {name: values["dice"]["mean"] for name, values in metrics["arms"].items()})
    assert metrics["n_test_cases"] == N_TEST
    assert transfer["dice"]["n_failed"] == 0
    for name in ("anterior", "posterior"):
        assert transfer["classes"][name]["dice"]["mean"] >= 0.80
    assert metrics["verdict"]["verdict"] == "gain"


def test_the_audit_shows_that_the_body_came_across(finished: Path) -> None:
    audit = read_json(finished / "artifacts" / "models" / "transfer-0-0" / "audit.json")
    assert audit["share_body"] == 1.0
    twin = read_json(finished / "artifacts" / "models" / "scratch-0-0" / "audit.json")
    assert twin["share_all"] == 0.0


def test_exported_seg_is_the_prediction(finished: Path) -> None:
    paths = sorted((finished / "artifacts" / "export" / "seg").glob("*.dcm"))
    assert len(paths) == N_TEST
    for path in paths:
        predicted = np.asarray(
            nib.load(finished / "artifacts" / "predictions" / "transfer" / "seed-0" / f"{path.stem}.nii.gz").dataobj
        )
        volumes = highdicom.seg.segread(path).get_volume(combine_segments=True, skip_overlap_checks=True)
        found = {value: int((volumes.array == value).sum()) for value in (1, 2)}
        assert found == {value: int((predicted == value).sum()) for value in (1, 2)}


def test_segment_applies_the_model_to_other_studies(finished: Path, tmp_path: Path) -> None:
    """The SEG, as highdicom reads it, equals the NIfTI voxel by voxel in the world."""
    key = finished.parent / "key"
    model = finished / "artifacts" / "models" / "transfer-0-0"
    command(
        "monai_tl", "segment", str(SHARED / "data" / "dicom" / "hippocampus_mr"), str(tmp_path / "out"),
        "--model", str(model), "--key-file", str(key), cwd=tmp_path,
    )  # fmt: skip
    results = sorted((tmp_path / "out").glob("case-*"))
    assert len(results) == 2
    for folder in results:
        image = nib.load(folder / "segmentation.nii.gz")
        label = np.asarray(image.dataobj)
        assert set(np.unique(label)) == {0, 1, 2}
        volume = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(
            combine_segments=True, skip_overlap_checks=True
        )
        to_voxel = np.linalg.inv(image.affine) @ affine_lps_to_ras(volume.affine)
        there = np.argwhere(volume.array > 0)
        mapped = there @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        assert np.abs(mapped - np.rint(mapped)).max() < 0.01
        voxels = np.rint(mapped).astype(int)
        assert len(voxels) == int((label > 0).sum())
        assert np.array_equal(label[tuple(voxels.T)], volume.array[tuple(there.T)])
