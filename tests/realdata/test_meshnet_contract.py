"""The published MeshNet on hippocampus crops: its weights load whole, it finds nothing, and the plan says so first."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from targets import make_fingerprint

from monai_tl.config import PlanConfig, PreprocessConfig, parse_params
from monai_tl.dataset.fingerprint import _echo_times, fingerprint
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_image, read_label
from monai_tl.dataset.transforms import prepare_case
from monai_tl.errors import ContractError
from monai_tl.networks.builders import build_network, register_network
from monai_tl.records import Fingerprint, Plan
from monai_tl.sources.audit import load_source, load_trained
from monai_tl.sources.card import read_source
from monai_tl.stages import run_stage
from monai_tl.transfer.contract_content import compare_channels
from monai_tl.transfer.planning import make_plan

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
N_CASES = 10
sys.path.insert(0, str(ROOT / "examples" / "meshnet"))
sys.path.insert(0, str(ROOT / "examples" / "hippodeep"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops as a Decathlon data set, ingested and split, beside both sources."""
    weights = SHARED / "weights" / "meshnet18" / "weights.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is absent; set MONAI_TL_SHARED")
    from monai_tl_hippodeep import SPEC as HIPPODEEP
    from monai_tl_meshnet import SPEC as MESHNET

    register_network("meshnet", MESHNET)
    register_network("hippodeep", HIPPODEEP)
    folder = tmp_path_factory.mktemp("meshnet")
    for name, example in (("meshnet18", "meshnet"), ("hippodeep", "hippodeep")):
        source = folder / "sources" / name
        source.mkdir(parents=True)
        shutil.copy(ROOT / "examples" / example / "card.yaml", source)
        shutil.copy(SHARED / "weights" / name / "weights.safetensors", source)
    data = folder / "data"
    paths = sorted((SHARED / "data" / "hippocampus" / "images").glob("*.nii.gz"))
    pairs = []
    for path in paths[:: len(paths) // N_CASES][:N_CASES]:
        for kind in ("images", "labels"):
            (data / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
            shutil.copy(path.parents[1] / kind / path.name, data / f"{kind}Tr" / path.name)
        pairs.append({"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"})
    described = {"name": "Hippocampus", "modality": {"0": "MRI"}, "training": pairs, "labels": {"0": "background"}}
    (data / "dataset.json").write_text(json.dumps(described))
    (folder / "key").write_bytes(b"a key that is long enough for a test, and no secret")
    (folder / "key").chmod(0o600)
    for stage in ("ingest", "split"):
        run_stage(stage, folder, params(folder, "sources/meshnet18"), {})
    return folder


def params(folder: Path, source: str, **plan: object):
    return parse_params(
        {
            "ingest": {
                "source": "data", "key_file": str(folder / "key"),
                "classes": [{"name": "anterior", "values": [1]}, {"name": "posterior", "values": [2]}],
            },
            "split": {"n_folds": 2, "test_fraction": 0.2},
            "plan": {"source": source, **plan},
        }
    )  # fmt: skip


def test_its_weights_load_whole(workspace: Path) -> None:
    source = read_source(workspace / "sources" / "meshnet18")
    # every tensor in its place, or this fails
    load_trained(source.folder)
    network = source.card.network.config
    module = build_network(network, 1, 18, seed=0)
    audit = load_source(module, network, 1, source.card.classes, source, 0.5)
    assert (audit.share_all, audit.share_body) == (1.0, 1.0)
    assert {tensor.status for tensor in audit.tensors} == {"matched"}


def test_the_plan_says_it_before_training_and_goes_on_only_when_told(workspace: Path, capsys) -> None:
    with pytest.raises(ContractError) as caught:
        run_stage("plan", workspace, params(workspace, "sources/meshnet18"), {})
    text = str(caught.value)
    assert "field of view: the source looks at 256 voxels" in text
    assert "one line is broken" in text
    assert "plan.accept_broken: [field of view]" in text
    assert not (workspace / "artifacts" / "plan").exists()
    accepted = params(workspace, "sources/meshnet18", accept_broken=["field of view"])
    run_stage("plan", workspace, accepted, {})
    assert "field of view broken BUT ACCEPTED" in capsys.readouterr().out
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    lines = {line.item: line for line in plan.adaptations}
    assert (lines["field of view"].status, lines["field of view"].accepted) == ("broken", True)
    assert {line.status for item, line in lines.items() if item != "field of view"} <= {"equal", "adapted"}
    found = Fingerprint.read(workspace / "artifacts/plan/fingerprint.json")
    i, j, k = found.shape_median
    assert plan.patch_size_vox == (i, k, j)
    assert plan.shift is not None
    # 256 voxels against the least that a crop has along an axis
    assert plan.shift.score == pytest.approx(np.log2(256 / min(found.shape_median)), rel=1e-4)
    assert plan.shift.largest == "field of view, share of the source's smallest"


def test_the_source_that_knows_crops_is_planned_without_a_word(workspace: Path) -> None:
    manifest = read_manifest(workspace / "artifacts/cases")
    found = fingerprint(manifest.cases, manifest)
    source = read_source(workspace / "sources" / "hippodeep")
    plan = make_plan(found, manifest.dataset.scheme, PlanConfig(source="s"), source)
    assert "broken" not in {line.status for line in plan.adaptations}
    assert all(feature.distance is None or feature.distance < 1.0 for feature in plan.shift.features)


def test_on_crops_it_finds_nothing(workspace: Path) -> None:
    """Zero-shot, prepared as its card says: what the broken line warns of."""
    manifest = read_manifest(workspace / "artifacts/cases")
    accepted = params(workspace, "sources/meshnet18", accept_broken=["field of view"])
    run_stage("plan", workspace, accepted, {})
    plan = Plan.read(workspace / "artifacts/plan/plan.json")
    network, source = load_trained(workspace / "sources" / "meshnet18")
    hippocampus = 1 + source.card.classes.index("Hippocampus")
    scores = []
    for case in manifest.cases:
        image, affine = read_image(manifest.image_path(case.case_id))
        label, _ = read_label(manifest.label_path(case.case_id))
        prepared, reference, _ = prepare_case(image, affine, plan, PreprocessConfig(), label.astype(np.uint8))
        with torch.inference_mode():
            found = network(torch.from_numpy(prepared)[None]).argmax(dim=1)[0].numpy() == hippocampus
        scores.append(2 * np.sum(found & (reference > 0)) / (found.sum() + np.sum(reference > 0)))
    assert len(scores) == N_CASES
    print(f"zero-shot Dice {np.mean(scores):.4f}, largest {max(scores):.4f}")
    assert max(scores) < 0.05


def test_a_t2_series_is_told_from_its_echo_time(workspace: Path, tmp_path: Path) -> None:
    """22 slices with an echo time of 88.32 ms in their headers, for sources that learned on T1."""
    content = params(workspace, "sources/meshnet18").model_dump(mode="json")
    content["ingest"] |= {"source": str(SHARED / "data/dicom/brain_mr/t2_5mm"), "classes": [{"name": "brain"}]}
    run_stage("ingest", tmp_path, parse_params(content), {})
    (case,) = read_manifest(tmp_path / "artifacts/cases").cases
    found = make_fingerprint(modality=case.modality, echo_time_ms=_echo_times([case]))
    for name in ("meshnet18", "hippodeep"):
        told = compare_channels(read_source(workspace / "sources" / name).card, found)
        assert told.status == "broken"
        assert "median 88.32, of 1 case" in told.reason
        assert "T2-weighted" in told.reason
