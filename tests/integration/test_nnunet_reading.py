"""nnU-Net results folders as sources: the logits are those of nnU-Net's own networks, and no pickle runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import shaken
from nnunet_results import ARCHITECTURES, checkpoint, dataset, plans, reference_network, write_results
from targets import SCHEME, lines_of, make_fingerprint

from monai_tl.config import IntensityConfig, NetworkConfig, PlanConfig
from monai_tl.dataset.intensity import clip_limits, scale_intensity
from monai_tl.errors import ContractError, SourceError, WeightsError
from monai_tl.networks.builders import build_network
from monai_tl.sources.audit import load_source, load_trained
from monai_tl.sources.card import read_source
from monai_tl.sources.drafts import IncompleteSourceError
from monai_tl.transfer.planning import make_plan

FOLDER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
NAMES = {"PlainConvUNet": "nnunet_plain", "ResidualEncoderUNet": "nnunet_residual"}


def _network(architecture: str = "PlainConvUNet", n_channels: int = 1, n_outputs: int = 3) -> Any:
    arguments = ARCHITECTURES[architecture]
    return build_network(NetworkConfig(name=NAMES[architecture], arguments=arguments), n_channels, n_outputs, seed=7)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / FOLDER, _network())


@pytest.mark.parametrize("architecture", sorted(NAMES))
def test_logits_are_those_of_nnunets_own_network(tmp_path: Path, architecture: str) -> None:
    pytest.importorskip("dynamic_network_architectures", reason="nnU-Net's networks are not installed")
    theirs = reference_network(architecture, 1, 3)
    folder = write_results(tmp_path / FOLDER, theirs, plans(architecture))
    ours, source = load_trained(folder)
    assert source.kind == "nnunet"
    theirs.decoder.deep_supervision = False  # type: ignore[union-attr]
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(ours(image), theirs.eval()(image), atol=1e-6)


@pytest.mark.parametrize("architecture", sorted(NAMES))
def test_a_results_folder_gives_its_contract(tmp_path: Path, architecture: str) -> None:
    folder = write_results(tmp_path / FOLDER, _network(architecture), plans(architecture))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    source = read_source(folder)
    card = source.card
    assert (card.name, card.network.name) == ("Dataset999_Mini-3d_fullres", NAMES[architecture])
    assert (card.classes, card.output, card.network.n_outputs) == (("liver", "tumour"), "softmax", 3)
    assert (card.input.modality, card.input.channels, card.input.spacing_mm) == ("CT", ("CT",), (3.0, 0.75, 0.5))
    # stored R, A, S; SimpleITK gives the last axis first
    assert card.input.orientation == "SAR"
    assert any("RAS order, which is assumed" in note for note in source.notes)
    load_trained(folder)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("order", "reader", "expected", "assumed"),
    [
        ([0, 1, 2], "SimpleITKIO", "SAR", True),
        ([2, 0, 1], "SimpleITKIO", "RSA", True),
        ([1, 0, 2], "NibabelIO", "ASR", True),
        ([0, 1, 2], "NibabelIOWithReorient", "SAR", False),
        ([0, 1, 2], "SimpleITKIOWithReorient", "SAR", False),
    ],
)
def test_axes_are_those_the_network_saw(
    tmp_path: Path, order: list[int], reader: str, expected: str, assumed: bool
) -> None:
    """Oracle: an array whose axes are told apart by their lengths, brought through nnU-Net's two steps by hand."""
    content = {**plans(), "transpose_forward": order, "image_reader_writer": reader}
    source = read_source(write_results(tmp_path / FOLDER, _network(), content))
    lengths = {"R": 3, "A": 5, "S": 7}
    stored = np.zeros((lengths["R"], lengths["A"], lengths["S"]))
    seen = stored.transpose(2, 1, 0).transpose(order)
    assert tuple(lengths[letter] for letter in expected) == seen.shape
    assert source.card.input.orientation == expected
    assert any("is assumed" in note for note in source.notes) == assumed


def test_the_patch_of_the_plans_is_what_the_source_saw(results: Path) -> None:
    """16 x 32 x 32 of 3 x 0.75 x 0.5 mm along S, A, R."""
    source = read_source(results)
    assert source.card.input.trained_window_vox == (16, 32, 32)
    config = PlanConfig(source="a")
    patch = make_fingerprint(extent_mm_median=(16.0, 24.0, 48.0))
    assert lines_of(make_plan(patch, SCHEME, config, source))["field of view"].status == "equal"
    padded = make_fingerprint(extent_mm_median=(16.0, 24.0, 24.0))
    assert "fills 50%" in lines_of(make_plan(padded, SCHEME, config, source))["field of view"].reason
    thin = make_fingerprint(extent_mm_median=(16.0, 24.0, 21.0))
    with pytest.raises(ContractError, match=r"field of view: the source looks at 16 voxels along axis S.* 7 \(44%"):
        make_plan(thin, SCHEME, config, source)


def test_a_patch_that_is_none_states_nothing(results: Path) -> None:
    _changed(results, "plans.json", "configurations", "3d_fullres", "patch_size", value=[16, 32, -1])
    assert read_source(results).card.input.trained_window_vox is None


def _their_normalisation(image: np.ndarray, scheme: str) -> np.ndarray:
    """nnU-Net's three normalisations, written down from their definition."""
    if scheme == "CTNormalization":
        return (np.clip(image, -50, 300) - 100) / 50
    if scheme == "ZScoreNormalization":
        return (image - image.mean()) / image.std()
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("scheme", ["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization"])
def test_the_intensity_rule_is_nnunets_normalisation(tmp_path: Path, scheme: str) -> None:
    content = plans(scheme=scheme)
    rule = read_source(write_results(tmp_path / FOLDER, _network(), content)).card.input.intensity
    image = np.random.default_rng(0).normal(80, 150, (12, 10, 9)).astype(np.float32)
    limits = clip_limits(image, rule)
    ours = scale_intensity(image if limits is None else np.clip(image, *limits).astype(np.float32), rule)
    assert np.allclose(ours, _their_normalisation(image.astype(np.float64), scheme), atol=1e-4)


def test_a_mask_of_what_is_not_zero_is_kept(tmp_path: Path) -> None:
    content = plans(scheme="ZScoreNormalization")
    content["configurations"]["3d_fullres"]["use_mask_for_norm"] = [True]
    rule = read_source(write_results(tmp_path / FOLDER, _network(), content)).card.input.intensity
    assert rule == IntensityConfig(rule="zscore", nonzero=True)


@pytest.mark.parametrize(("name", "spacing"), [("3d_fullres", (3.0, 0.75, 0.5)), ("3d_lowres", (4.0, 1.5, 1.0))])
def test_the_configuration_is_that_of_the_folders_name(tmp_path: Path, name: str, spacing: Any) -> None:
    folder = write_results(tmp_path / f"nnUNetTrainer__nnUNetPlans__{name}", _network())
    assert read_source(folder).card.input.spacing_mm == spacing


def test_plans_of_older_versions_are_read(tmp_path: Path) -> None:
    content = plans()
    configuration = content["configurations"]["3d_fullres"]
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "pool_op_kernel_sizes": arguments["strides"],
        "num_pool_per_axis": [1, 2, 2],
    }
    content["foreground_intensity_properties_by_modality"] = content.pop("foreground_intensity_properties_per_channel")
    folder = write_results(tmp_path / FOLDER, _network(), content)
    assert read_source(folder).card.network.arguments == arguments
    load_trained(folder)


def test_regions_are_sigmoids_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing": [3], "ignore": 4}
    folder = write_results(tmp_path / FOLDER, _network(), data=dataset(labels=labels))
    card = read_source(folder).card
    assert (card.output, card.classes) == ("sigmoid", ("whole tumour", "tumour core", "enhancing"))
    load_trained(folder)


def test_a_fold_can_be_chosen(tmp_path: Path) -> None:
    folder = write_results(tmp_path / FOLDER, _network(), folds=("fold_1", "fold_10", "fold_2"))
    torch.save(checkpoint(_network("PlainConvUNet", 1, 3).double()), folder / "fold_2" / "checkpoint_final.pth")
    source = read_source(folder)
    assert source.weights_name == "fold_1/checkpoint_final.pth"
    assert any("fold_1 of 3 folds" in note for note in source.notes)
    chosen = read_source(folder / "fold_2")
    assert (chosen.weights_name, chosen.folder) == ("fold_2/checkpoint_final.pth", folder)
    assert chosen.card.weights.sha256 != source.card.weights.sha256


def test_the_best_checkpoint_is_taken_where_there_is_no_final_one(tmp_path: Path) -> None:
    source = read_source(write_results(tmp_path / FOLDER, _network(), name="checkpoint_best.pth"))
    assert source.weights_name == "fold_0/checkpoint_best.pth"
    assert any("checkpoint_best.pth is taken" in note for note in source.notes)


STEMS = {
    "PlainConvUNet": "encoder.stages.0.0.convs.0.conv",
    "ResidualEncoderUNet": "encoder.stem.convs.0.conv",
}
"""Architecture → the convolution that sees the image."""
CONTRASTS = ("T1", "T1Gd", "T2", "FLAIR")


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 4), (4, 1), (4, 3)])
@pytest.mark.parametrize("architecture", sorted(NAMES))
def test_a_network_for_other_classes_and_channels_starts_from_it(
    tmp_path: Path, architecture: str, n_source: int, n_target: int
) -> None:
    """An image with the same content in each channel is met as one of the source's is, and the audit says so."""
    theirs = shaken(_network(architecture, n_source))
    content = plans(architecture, n_source, "ZScoreNormalization")
    source = read_source(write_results(tmp_path / FOLDER, theirs, content, dataset(CONTRASTS[:n_source])))
    network = source.card.network.config
    target = build_network(network, n_target, 2, seed=1)
    audit = load_source(target, network, n_target, ("liver",), source, floor=0.9)
    assert audit.share_body == 1.0
    stem = STEMS[architecture]
    (line,) = [item for item in audit.tensors if item.name == f"{stem}.weight"]
    assert (line.status, line.detail) == ("adapted", f"input channels {n_source} to {n_target}, sum kept")
    others = {item.group for item in audit.tensors if item.status != "matched" and item is not line}
    assert others == {"head"}
    constant, noise = torch.full((1, 1, 6, 6, 6), 3.0), torch.randn(1, 1, 6, 6, 6)
    old, new = theirs.get_submodule(stem), target.get_submodule(stem)
    assert new.weight.shape[1] == n_target
    for grey in (constant, noise):
        expected = old(grey.expand(-1, n_source, -1, -1, -1))
        assert torch.allclose(new(grey.expand(-1, n_target, -1, -1, -1)), expected, atol=1e-5)
    # closed form away from the border: the sum of the kernel over its channels and taps
    kernel = theirs.state_dict()[f"{stem}.weight"].double().sum((1, 2, 3, 4))
    response = new(constant.expand(-1, n_target, -1, -1, -1))[0, :, 3, 3, 3]
    assert torch.allclose(response.double(), 3.0 * kernel + old.bias.double(), atol=1e-5)


class _Payload:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch CANARY",)


@pytest.mark.parametrize("place", ["logging", "network_weights", "extra"])
def test_a_payload_in_a_checkpoint_does_not_run(
    results: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = checkpoint(_network())
    content.setdefault(place, {})["payload"] = _Payload()
    torch.save(content, results / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(WeightsError, match="would run code"):
        load_trained(results)
    assert not (tmp_path / "CANARY").exists()


def test_numpy_is_not_called_for_what_is_left_out(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object array would unpickle what is in it: its reconstructor must never be reached."""
    content = checkpoint(_network(), {"objects": np.array([_Payload()], dtype=object)})
    torch.save(content, results / "fold_0" / "checkpoint_final.pth")
    monkeypatch.chdir(results.parent)
    with pytest.raises(WeightsError, match="would run code"):
        load_trained(results)
    assert not (results.parent / "CANARY").exists()


def test_the_allowance_ends_with_the_load(results: Path) -> None:
    load_trained(results)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(results / "fold_0" / "checkpoint_final.pth", weights_only=True)


def _changed(folder: Path, file: str, *path: Any, value: Any) -> Path:
    content = json.loads((folder / file).read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / file).write_text(json.dumps(content))
    return folder


FULL = ("configurations", "3d_fullres")
ARCHITECTURE = (*FULL, "architecture")


@pytest.mark.parametrize(
    ("file", "path", "value", "why"),
    [
        ("plans.json", (*ARCHITECTURE, "network_class_name"), "os.system", "'os.system' is not in the table"),
        ("plans.json", (*ARCHITECTURE, "network_class_name"), "evil.PlainConvUNet", "not in the table"),
        ("plans.json", (*ARCHITECTURE, "arch_kwargs", "norm_op"), "os.system", "norm_op"),
        ("plans.json", (*ARCHITECTURE, "arch_kwargs", "colour"), 3, "no such argument"),
        ("plans.json", (*FULL, "patch_size"), [32, 32], "2-D"),
        ("plans.json", (*FULL, "previous_stage"), "3d_lowres", "cascade"),
        ("plans.json", (*FULL, "inherits_from"), "3d_fullres", "without end"),
        ("plans.json", ("configurations",), [], "no configurations"),
        ("dataset.json", ("labels",), {"background": 0, "liver": 7}, "not 1, 2, 3"),
        ("dataset.json", ("labels",), {}, "no labels"),
        ("dataset.json", ("channel_names",), {}, "no channel_names"),
    ],
)
def test_what_cannot_be_built_is_refused(results: Path, file: str, path: Any, value: Any, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        read_source(_changed(results, file, *path, value=value))


@pytest.mark.parametrize(
    ("file", "path", "value", "line"),
    [
        ("plans.json", (*FULL, "normalization_schemes"), ["NoNormalization"], "input.intensity"),
        ("plans.json", (*FULL, "normalization_schemes"), ["CTNormalization", "ZScoreNormalization"], "input.intensity"),
        ("plans.json", ("image_reader_writer",), "NaturalImage2DIO", "input.orientation"),
        ("plans.json", ("transpose_forward",), [0, 0, 1], "input.orientation"),
        ("plans.json", (*FULL, "spacing"), [1.0, 1.0], "input.spacing_mm"),
        ("dataset.json", ("channel_names",), {"0": "something"}, "input.modality"),
    ],
)
def test_what_is_no_rule_of_ours_is_a_line_the_user_can_add(
    results: Path, file: str, path: Any, value: Any, line: str
) -> None:
    _changed(results, file, *path, value=value)
    with pytest.raises(IncompleteSourceError) as error:
        read_source(results)
    assert list(error.value.missing) == [line]
    known = {
        "intensity": {"rule": "zscore"},
        "orientation": "SPL",
        "spacing_mm": [2, 1, 1],
        "modality": "MR",
    }
    key = line.partition(".")[2]
    (results / "card.yaml").write_text(json.dumps({"input": {key: known[key]}}))
    assert read_source(results).kind == "nnunet"


def test_a_folder_without_a_checkpoint_is_refused(results: Path) -> None:
    (results / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(WeightsError, match=r"no checkpoint_final\.pth or checkpoint_best\.pth in fold_0"):
        read_source(results)
