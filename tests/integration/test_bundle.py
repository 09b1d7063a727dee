"""A model as a MONAI bundle: MONAI loads it, and it answers as the pipeline does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_tl.config import IntensityConfig, NetworkConfig, PreprocessConfig
from monai_tl.dataset.transforms import prepare_image
from monai_tl.errors import SourceError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors
from monai_tl.records import Plan, SizeRule
from monai_tl.sources.audit import load_trained
from monai_tl.sources.bundle import write_bundle
from monai_tl.sources.card import Card, write_source

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"channels": [4, 8], "strides": [2], "norm": ["batch", {"affine": True}]},
    "dynunet": {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
}
PATCH = (16, 16, 8)
RULES = {
    "window": IntensityConfig(rule="window", low=-100.0, high=300.0),
    "zscore": IntensityConfig(rule="zscore", low=1.0, high=99.5),
    "zscore alone": IntensityConfig(rule="zscore"),
    "minmax": IntensityConfig(rule="minmax"),
}


def _write_model(folder: Path, name: str = "unet", rule: str = "window", **changes: Any) -> Path:
    """A model folder as the finetune stage leaves it, untrained."""
    network = NetworkConfig(name=name, arguments=NETWORKS[name])
    names = ("liver", "tumour")
    plan = Plan(
        modality="CT",
        n_channels=1,
        scheme=LabelScheme(classes=tuple(ClassSpec(name=item) for item in names)),
        orientation="LPS",
        spacing_mm=(2.0, 2.0, 3.0),
        intensity=RULES[rule],
        size_rule=SizeRule(divisor=4),
        patch_size_vox=PATCH,
        network=network,
        source="sources/abdomen_a",
        source_sha256="ab" * 32,
    ).model_copy(update=changes)
    content = {
        "name": "tumour_b",
        "network": {**network.model_dump(), "n_channels": 1, "n_outputs": 3},
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
        "licence": "CC-BY-4.0",
        "citation": "Nobody et al. 2020",
        "input": {
            "modality": "CT",
            "channels": ["CT"],
            "orientation": plan.orientation,
            "spacing_mm": plan.spacing_mm,
            "intensity": plan.intensity.model_dump(),
        },
        "classes": names,
    }
    write_source(folder, Card.model_validate(content), named_tensors(build_network(network, 1, 3, seed=4)))
    plan.write(folder / "plan.json")
    (folder / "training.json").write_text(json.dumps({"best_val_dice": 0.875}))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(_write_model(tmp_path / "model"), tmp_path / "bundle")
    return tmp_path / "bundle"


def _parser(bundle: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"] = str(bundle)
    return parser


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_monai_loads_it_and_answers_as_we_do(tmp_path: Path, name: str) -> None:
    ours, _ = load_trained(_write_model(tmp_path / "model", name))
    write_bundle(tmp_path / "model", tmp_path / "bundle")
    theirs = monai.bundle.load("bundle", bundle_dir=tmp_path, workflow_type="inference", source="github", device="cpu")
    assert isinstance(theirs, torch.nn.Module)
    image = torch.randn(2, 1, *PATCH)
    with torch.inference_mode():
        assert torch.equal(theirs.eval()(image), ours(image))


def test_the_weights_load_strictly_as_monais_handler_does(bundle: Path) -> None:
    module = _parser(bundle).get_parsed_content("network_def")
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    module.load_state_dict(state, strict=True)


def test_the_stated_sizes_hold(bundle: Path) -> None:
    """MONAI's own check of metadata.json against the network."""
    monai.bundle.verify_net_in_out(
        "network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        device="cpu",
    )


def test_metadata_says_what_a_user_must_know(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    needed = "version changelog monai_version pytorch_version numpy_version task description authors copyright"
    assert set(needed.split()) <= set(metadata)
    formats = metadata["network_data_format"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver", "2": "tumour"}
    assert formats["inputs"]["image"]["num_channels"] == 1
    assert metadata["references"] == ["Nobody et al. 2020"]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_preprocessing_is_that_of_the_pipeline(tmp_path: Path, rule: str) -> None:
    """On the plan's spacing, where the two resamplers have nothing to do, the arrays agree."""
    write_bundle(_write_model(tmp_path / "model", rule=rule), tmp_path / "bundle")
    plan = Plan.read(tmp_path / "model" / "plan.json")
    stored = np.random.default_rng(0).normal(50, 200, (20, 18, 10)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-30, 12, 5)
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "case.nii.gz")
    ours, _ = prepare_image(stored, affine, plan, PreprocessConfig())
    theirs = _parser(tmp_path / "bundle").get_parsed_content("preprocessing")({"image": tmp_path / "case.nii.gz"})
    assert theirs["image"].shape == ours.shape
    assert np.allclose(theirs["image"].numpy(), ours, atol=1e-4)


def test_a_crop_that_decides_the_scale_is_stated(tmp_path: Path) -> None:
    """With a foreground threshold, z-score statistics come from the box; a window needs no box."""
    cropped = {"foreground": "above", "foreground_threshold": 100.0}
    write_bundle(_write_model(tmp_path / "model", rule="zscore", **cropped), tmp_path / "bundle")
    plan = Plan.read(tmp_path / "model" / "plan.json")
    stored = np.random.default_rng(0).normal(0, 10, (40, 40, 24)).astype(np.float32)
    stored[18:22, 18:22, 10:14] += 500
    nib.save(nib.Nifti1Image(stored, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "case.nii.gz")
    ours, _ = prepare_image(stored, np.diag([2.0, 2.0, 3.0, 1.0]), plan, PreprocessConfig())
    theirs = _parser(tmp_path / "bundle").get_parsed_content("preprocessing")({"image": tmp_path / "case.nii.gz"})
    assert ours.shape == tuple(theirs["image"].shape) != (1, 40, 40, 24)
    assert np.allclose(theirs["image"].numpy(), ours, atol=1e-4)


def test_a_case_goes_through_from_file_to_label_map(tmp_path: Path, bundle: Path) -> None:
    """All parts of inference.json but the ignite engine, which is not installed here."""
    stored = np.random.default_rng(1).normal(50, 200, (30, 28, 20)).astype(np.float32)
    affine = np.diag([-1.0, 1.5, 2.0, 1.0])
    (bundle / "images").mkdir()
    nib.save(nib.Nifti1Image(stored, affine), bundle / "images" / "case.nii.gz")
    parser = _parser(bundle)
    parser["output_dir"] = str(tmp_path / "out")
    network = parser.get_parsed_content("network").eval()
    (batch,) = parser.get_parsed_content("dataloader")
    with torch.inference_mode():
        batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    (item,) = monai.data.decollate_batch(batch)
    parser.get_parsed_content("postprocessing")(item)
    (path,) = (tmp_path / "out").rglob("*.nii.gz")
    written = nib.load(path)
    assert written.shape == stored.shape
    assert np.allclose(written.affine, affine)
    assert set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2}


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    hashes = []
    for place in ("one", "another place/two"):
        write_bundle(_write_model(tmp_path / place / "model"), tmp_path / place / "bundle")
        root = tmp_path / place / "bundle"
        files = sorted(path for path in root.rglob("*") if path.is_file())
        hashes.append({str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert hashes[0] == hashes[1]
    assert set(hashes[0]) == {
        "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md", "LICENSE",
    }  # fmt: skip


def test_nothing_of_this_machine_is_inside(bundle: Path, tmp_path: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()
            assert not re.search(rb"20\d\d-\d\d-\d\d", path.read_bytes())


def test_the_model_card_says_where_it_comes_from(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text()
    for part in ("| 2 | tumour |", "LPS", "2 x 2 x 3 mm", "clipped to -100 to 300", "abdomen_a", "0.875", "CC-BY-4.0"):
        assert part in text
    assert "CC-BY-4.0" in (bundle / "LICENSE").read_text()


def test_the_licence_beside_the_weights_goes_along(tmp_path: Path) -> None:
    (_write_model(tmp_path / "model") / "LICENSE").write_text("All rights to everyone.\n")
    write_bundle(tmp_path / "model", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "LICENSE").read_text() == "All rights to everyone.\n"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no card\.yaml"):
        write_bundle(tmp_path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
