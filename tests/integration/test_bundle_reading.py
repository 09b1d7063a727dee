"""MONAI bundles as sources: the contract and the logits are those of the bundle, and nothing in it runs."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from targets import lines_of, make_fingerprint
from torch import nn
from zoo_bundles import ct_steps, inference, metadata, network_of, spleen, transform, write_bundle_files, zip_folder

from monai_tl.config import IntensityConfig, NetworkConfig, PlanConfig
from monai_tl.errors import ContractError, SourceError, WeightsError
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors
from monai_tl.records import Plan, SizeRule
from monai_tl.sources.audit import load_source, load_trained
from monai_tl.sources.bundle import write_bundle
from monai_tl.sources.card import Card, read_source, write_source
from monai_tl.sources.drafts import IncompleteSourceError
from monai_tl.transfer.planning import make_plan

SHAPE = (1, 1, 64, 32, 32)


@pytest.fixture(autouse=True)
def _nothing_runs_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a bundle would run makes a file named CANARY where the process is."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("*CANARY*"))
    assert not list(tmp_path.rglob("*.part"))


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _same_logits(path: Path, theirs: nn.Module, n_channels: int = 1) -> None:
    ours, _ = load_trained(path)
    image = torch.randn(1, n_channels, *SHAPE[2:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image))


TARGETS_OF_THE_ZOO = [
    ("UNet", "json"),
    ("monai.networks.nets.SegResNet", "json"),
    ("monai.networks.nets.SegResNet", "yaml"),
    ("monai.networks.nets.dynunet.DynUNet", "json"),
    ("monai.networks.nets.dynunet.DynUNet", "yaml"),
    ("SwinUNETR", "json"),
    ("BasicUNet", "json"),
    ("monai.networks.nets.segresnet_ds.SegResNetDS", "yaml"),
    ("monai.networks.nets.UNETR", "json"),
    ("AttentionUnet", "json"),
    ("monai.networks.nets.vnet.VNet", "json"),
    ("monai.networks.nets.FlexibleUNet", "yaml"),
]


# Auto3DSeg's SegResNetDS asks for a fused normalisation, in whose place MONAI takes torch's
@pytest.mark.filterwarnings("ignore:.*InstanceNorm3dNVFuser")
@pytest.mark.parametrize(("target", "form"), TARGETS_OF_THE_ZOO)
def test_a_bundle_of_the_zoos_form_gives_its_contract_and_its_logits(tmp_path: Path, target: str, form: str) -> None:
    folder, theirs = spleen(tmp_path / "spleen_v0.5.9", target, form)
    before = _tree(tmp_path)
    source = read_source(folder)
    card = source.card
    assert source.kind == "bundle"
    assert (card.classes, card.output, card.network.n_channels) == (("spleen",), "softmax", 1)
    assert (card.input.modality, card.input.channels, card.input.orientation) == ("CT", ("CT",), "RAS")
    assert card.input.spacing_mm == (1.5, 1.5, 2.0)
    assert card.input.intensity == IntensityConfig(rule="window", low=-57.0, high=164.0)
    assert (card.licence, card.citation, card.name) == ("Apache-2.0", "Nobody et al. 2020", "spleen_v0.5.9")
    _same_logits(folder, theirs)
    assert _tree(tmp_path) == before


def test_a_network_that_is_2d_where_nothing_is_said_is_not_taken_for_3d(tmp_path: Path) -> None:
    """FlexibleUNet alone of MONAI's networks has two dimensions unless told."""
    folder, _ = spleen(tmp_path / "flat", "FlexibleUNet")
    config = json.loads((folder / "configs" / "inference.json").read_text())
    del config["network_def"]["spatial_dims"]
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=4))
    with pytest.raises(SourceError, match=r"spatial_dims\) is 2; only networks with spatial_dims 3 are read"):
        read_source(folder)


def test_a_swin_unetr_with_an_argument_of_older_versions_is_read(tmp_path: Path) -> None:
    config = inference("SwinUNETR", 1, 3, ct_steps(-175, 250))
    module = network_of(config)
    config["network_def"]["img_size"] = 96
    meta = metadata(["image"], ["background", "spleen", "Right Kidney"])
    source = read_source(write_bundle_files(tmp_path / "swin", config, meta, module.state_dict()))
    assert any("img_size" in note for note in source.notes)
    ours, _ = load_trained(tmp_path / "swin")
    held = ours.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("wrapping", ["spleen_ct_segmentation/", ""])
def test_a_zip_file_is_read_without_unpacking_it(tmp_path: Path, wrapping: str) -> None:
    folder, theirs = spleen(tmp_path / "folder")
    path = zip_folder(folder, tmp_path / "spleen_v0.5.9.zip", wrapping)
    shutil.rmtree(folder)
    before = _tree(tmp_path)
    source = read_source(path)
    assert (source.card.classes, source.card.name) == (("spleen",), "spleen_v0.5.9")
    _same_logits(path, theirs)
    assert _tree(tmp_path) == before


def test_a_network_for_other_classes_starts_from_a_zip_file(tmp_path: Path) -> None:
    folder, theirs = spleen(tmp_path / "folder")
    source = read_source(zip_folder(folder, tmp_path / "a.zip", "top/"))
    network = source.card.network.config
    target = build_network(network, 1, 4, seed=1)
    audit = load_source(target, network, 1, ("liver", "spleen", "tumour"), source, floor=0.9)
    assert audit.share_body == 1.0
    name = "model.0.conv.unit0.conv.weight"
    assert torch.equal(target.state_dict()[name], theirs.state_dict()[name])


def test_the_forms_of_wholebody_and_pediatric_bundles_are_data(tmp_path: Path) -> None:
    """Values behind references, a choice by a literal, a length, another name of the weights, label_def."""
    config = inference("monai.networks.nets.DynUNet", 1, 3, "@steps")
    module = network_of(config)
    config |= {
        "spatial_size": [96, 96, 96],
        "spatial_dims": "$len(@spatial_size)",
        "options": {"highres": True},
        "pixdim": "$[1.5, 1.5, 1.5] if @options#highres else [3.0, 3.0, 3.0]",
        "image_key": "image",
        "steps": [
            transform("LoadImaged", reader="ITKReader", keys="@image_key"),
            transform("EnsureChannelFirstd", keys="@image_key"),
            transform("Orientationd", axcodes="RAS", keys="@image_key"),
            transform("Spacingd", pixdim="@pixdim", keys=["@image_key"], mode=["bilinear"]),
            transform("NormalizeIntensityd", nonzero=True),
            transform("ScaleIntensityd", minv=-1.0, maxv=1.0),
            transform("CropForegroundd", source_key="@image_key", select_fn="$lambda x: x > 0"),
            transform("CastToTyped", dtype="$torch.float32"),
        ],
    }
    config["network_def"] |= {"spatial_dims": "@spatial_dims", "in_channels": 1}
    config["checkpointloader"]["load_path"] = "$@bundle_root + '/models/dynunet_FT.pt'"
    meta = metadata(["image"], ["background", "liver", "pancreas"])
    outputs = meta["network_data_format"]["outputs"]["pred"]
    outputs["label_def"] = outputs.pop("channel_def")
    folder = write_bundle_files(tmp_path / "pediatric", config, meta, None, "yaml")
    torch.save({"model": module.state_dict()}, folder / "models" / "dynunet_FT.pt")
    torch.save({}, folder / "models" / "another.pt")
    card = read_source(folder).card
    assert card.input.spacing_mm == (1.5, 1.5, 1.5)
    assert card.input.intensity == IntensityConfig(rule="minmax", output=(-1.0, 1.0))
    assert card.weights.file == "dynunet_FT.pt"
    assert card.classes == ("liver", "pancreas")
    ours, _ = load_trained(folder)
    image = torch.randn(1, 1, 32, 32, 16)
    with torch.inference_mode():
        assert torch.equal(ours(image), module(image))


def _brats(folder: Path) -> tuple[Path, nn.Module]:
    """Four channels, three overlapping classes, and neither orientation nor spacing anywhere."""
    steps = [transform("LoadImaged"), transform("NormalizeIntensityd", nonzero=True, channel_wise=True)]
    config = inference("SegResNet", 4, 3, steps)
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    module = network_of(config)
    outputs = ["Tumor core", "Whole tumor", "Enhancing tumor"]
    meta = metadata(["T1c", "T1", "T2", "FLAIR"], outputs, "MR", ["8*n", "8*n", "8*n"])
    return write_bundle_files(folder, config, meta, module.state_dict()), module


def test_lines_that_a_bundle_lacks_are_listed_and_can_be_added(tmp_path: Path) -> None:
    folder, theirs = _brats(tmp_path / "brats")
    with pytest.raises(IncompleteSourceError) as error:
        read_source(folder)
    assert set(error.value.missing) == {"input.orientation", "input.spacing_mm"}
    assert "Orientationd" in str(error.value)
    assert str(folder / "card.yaml") in str(error.value)
    lines = {"input": {"orientation": "LPS", "spacing_mm": [1, 1, 1]}}
    (folder / "card.yaml").write_text(yaml.safe_dump(lines))
    card = read_source(folder).card
    assert (card.output, card.network.n_outputs, card.input.channels) == ("sigmoid", 3, ("T1c", "T1", "T2", "FLAIR"))
    assert card.input.intensity == IntensityConfig(rule="zscore", nonzero=True)
    assert card.input.size_rule.divisor == 8
    assert card.input.orientation == "LPS"
    _same_logits(folder, theirs, 4)


def test_lines_beside_a_zip_file_are_added_too(tmp_path: Path) -> None:
    folder, _ = _brats(tmp_path / "folder")
    path = zip_folder(folder, tmp_path / "brats_v0.5.2.zip", "brats/")
    with pytest.raises(IncompleteSourceError, match=r"brats_v0\.5\.2\.card\.yaml"):
        read_source(path)
    lines = "input: {orientation: LPS, spacing_mm: [1, 1, 1]}\nnotes: mine\n"
    (tmp_path / "brats_v0.5.2.card.yaml").write_text(lines)
    assert (read_source(path).card.input.orientation, read_source(path).card.notes) == ("LPS", "mine")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("input: {spacing_mm: [1, 1]}", "input.spacing_mm"),
        ("weights: {file: x}\n", "weights"),
        ("- 1\n", "no mapping"),
        ("a: [", "YAML"),
    ],
)
def test_faulty_lines_are_told(tmp_path: Path, lines: str, why: str) -> None:
    path = zip_folder(spleen(tmp_path / "folder")[0], tmp_path / "a.zip", "a/")
    (tmp_path / "a.card.yaml").write_text(lines)
    with pytest.raises(SourceError, match=why):
        read_source(path)


RULES = {
    "window": IntensityConfig(rule="window", low=-100.0, high=300.0, output=(-1.0, 1.0)),
    "zscore": IntensityConfig(rule="zscore", low=1.0, high=99.5),
    "nonzero": IntensityConfig(rule="zscore", nonzero=True),
    "minmax": IntensityConfig(rule="minmax", low=1.0, high=99.0, output=(-1.0, 1.0)),
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_we_export_is_read_back(tmp_path: Path, rule: str) -> None:
    """Round trip: contract, classes and logits of an exported model, as a folder and zipped."""
    network = NetworkConfig(name="unet", arguments={"channels": [4, 8], "strides": [2], "norm": ["batch", {}]})
    scheme = LabelScheme(classes=(ClassSpec(name="liver"), ClassSpec(name="tumour")))
    plan = Plan(
        modality="MR",
        n_channels=1,
        scheme=scheme,
        orientation="LPS",
        spacing_mm=(2.0, 2.0, 3.0),
        intensity=RULES[rule],
        foreground="above",
        foreground_threshold=3.0,
        size_rule=SizeRule(divisor=4, padding="edge"),
        patch_size_vox=(16, 16, 8),
        network=network,
        source=None,
        source_sha256=None,
    )
    content = {
        "name": "liver",
        "network": {**network.model_dump(), "n_channels": 1, "n_outputs": 3},
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64},
        "licence": "CC-BY-NC-4.0",
        "citation": "Nobody et al. 2020",
        "input": {
            "modality": "MR",
            "channels": ["MR"],
            "orientation": "LPS",
            "spacing_mm": plan.spacing_mm,
            "intensity": plan.intensity.model_dump(),
        },
        "classes": ["liver", "tumour"],
    }
    model = tmp_path / "model"
    write_source(model, Card.model_validate(content), named_tensors(build_network(network, 1, 3, seed=4)))
    plan.write(model / "plan.json")
    (model / "training.json").write_text("{}")
    write_bundle(model, tmp_path / "bundle")
    theirs, trained = load_trained(model)
    assert trained.kind == "run"
    for path in (tmp_path / "bundle", zip_folder(tmp_path / "bundle", tmp_path / "bundle.zip", "bundle/")):
        card = read_source(path).card
        assert (card.classes, card.input.intensity) == (("liver", "tumour"), plan.intensity)
        assert (card.input.modality, card.input.orientation) == ("MR", "LPS")
        assert (card.input.spacing_mm, card.input.size_rule.padding) == (plan.spacing_mm, "edge")
        _same_logits(path, theirs)
        assert card.citation == "Nobody et al. 2020"
        assert card.input.trained_window_vox == (16, 16, 8)


def test_safetensors_in_a_bundle_are_read(tmp_path: Path) -> None:
    folder, theirs = spleen(tmp_path / "a")
    (folder / "models" / "model.pt").unlink()
    save_file(dict(theirs.state_dict()), folder / "models" / "model.safetensors")
    _same_logits(folder, theirs)


# ---------------------------------------------------------------- refusals: one typed error each, nothing runs


def _damaged(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    spleen(folder)
    config = json.loads((folder / "configs" / "inference.json").read_text())
    meta = json.loads((folder / "configs" / "metadata.json").read_text())
    change(config, meta)
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=4))
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta, indent=4))
    return folder


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(config: dict[str, Any], _: dict[str, Any]) -> None:
        place: Any = config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


TOUCH = "__import__('os').system('touch CANARY')"


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        (("network_def", "in_channels"), "$import os", "network_def.in_channels"),
        (("network_def", "in_channels"), f"${TOUCH}", "network_def.in_channels"),
        (("network_def", "_target_"), "os.system", "network_def._target_"),
        (("network_def", "_target_"), "monai.networks.nets.unet.os.system", "network_def._target_"),
        (("network_def", "_target_"), "scripts.networks.UNet", "network_def._target_"),
        (("network_def", "_target_"), "$@imports", "network_def._target_"),
        (("network_def", "_target_"), ["UNet"], "network_def._target_"),
        (("network_def", "norm"), {"_target_": "os.system", "command": "touch CANARY"}, "network_def.norm._target_"),
        (("network_def",), f"${TOUCH}", "network_def"),
        (("preprocessing", "transforms", 4, "a_min"), f"${TOUCH}", "preprocessing.transforms.4.a_min"),
        (("preprocessing", "transforms", 4, "_target_"), "os.system", "preprocessing.transforms.4._target_"),
        (("preprocessing", "transforms", 3, "_disabled_"), f"${TOUCH}", "preprocessing.transforms.3._disabled_"),
        (("preprocessing", "transforms", 3, "_disabled_"), "$not @off", "preprocessing.transforms.3._disabled_"),
        (("preprocessing", "transforms", 3, "diagonal"), f"${TOUCH}", "preprocessing.transforms.3.diagonal"),
        (("preprocessing", "transforms", 5, "dtype"), f"${TOUCH}", "preprocessing.transforms.5.dtype"),
        (("preprocessing", "transforms", 0, "reader"), f"${TOUCH}", "preprocessing.transforms.0.reader"),
        (("preprocessing", "transforms"), f"${TOUCH}", "preprocessing.transforms"),
        (("imports", 1), f"${TOUCH}", "imports.1"),
        (("imports", 0), "$exec(open('scripts/a.py').read())", "imports.0"),
    ],
)
def test_what_needs_code_is_refused_with_file_line_and_key(tmp_path: Path, path: Any, value: Any, key: str) -> None:
    folder = _damaged(tmp_path / "a", _set(*path, value=value))
    text = (folder / "configs" / "inference.json").read_text()
    for source in (folder, zip_folder(folder, tmp_path / "a.zip", "a/")):
        with pytest.raises(SourceError, match=rf"configs/inference\.json, line \d+ \(key {key}\)") as error:
            read_source(source)
        shown = json.dumps(value)[1:-1] if isinstance(value, str) else "_target_"
        assert shown in str(error.value)
        number = int(re.findall(r"line (\d+) \(key", str(error.value))[0])
        assert text.splitlines()[number - 1].strip()[:60] in str(error.value)


def test_ordinary_imports_are_never_run(tmp_path: Path) -> None:
    folder = _damaged(tmp_path / "a", _set("imports", value=["$import scripts.evil", "$from scripts import evil"]))
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("open('CANARY', 'w')\n")
    (folder / "scripts" / "evil.py").write_text("open('CANARY', 'w')\n")
    assert read_source(folder).card.classes == ("spleen",)


def test_the_logging_configuration_is_never_opened(tmp_path: Path) -> None:
    folder, _ = spleen(tmp_path / "a")
    (folder / "configs" / "logging.conf").unlink()
    (folder / "configs" / "logging.conf").symlink_to("/proc/self/nowhere")
    assert read_source(folder).card.classes == ("spleen",)


@pytest.mark.parametrize("name", ["models/model.pt", "configs/metadata.json", "configs/inference.json"])
def test_a_link_out_of_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    folder, _ = spleen(tmp_path / "a")
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(SourceError, match="leads out"):
        read_source(folder)


def test_a_member_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = zip_folder(spleen(tmp_path / "a")[0], tmp_path / "a.zip", "a/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/../../CANARY", b"x")
    with pytest.raises(SourceError, match="outside its folder"):
        read_source(path)


class _Payload:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch CANARY",)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_payload_in_the_weights_does_not_run(tmp_path: Path, how: str, zipped: bool, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    folder, theirs = spleen(tmp_path / "a")
    state = {**theirs.state_dict(), "payload": _Payload()}
    if how == "torch":
        torch.save(state, folder / "models" / "model.pt")
    else:
        (folder / "models" / "model.pt").write_bytes(pickle.dumps(_Payload()))
    path = zip_folder(folder, tmp_path / "a.zip", "a/") if zipped else folder
    with pytest.raises(WeightsError, match=r"would run code|damaged"):
        load_trained(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_weights_with_nan_are_refused(tmp_path: Path, zipped: bool) -> None:
    folder, theirs = spleen(tmp_path / "a")
    state = dict(theirs.state_dict())
    state["model.0.conv.unit0.conv.weight"] = state["model.0.conv.unit0.conv.weight"] * np.nan
    torch.save(state, folder / "models" / "model.pt")
    with pytest.raises(WeightsError, match="NaN"):
        load_trained(zip_folder(folder, tmp_path / "a.zip", "a/") if zipped else folder)


def test_weights_changed_after_the_plan_are_refused(tmp_path: Path) -> None:
    from monai_tl.sources.opening import open_weights

    folder, theirs = spleen(tmp_path / "a")
    source = read_source(folder)
    torch.save({name: tensor + 1 for name, tensor in theirs.state_dict().items()}, folder / "models" / "model.pt")
    with pytest.raises(WeightsError, match="sha256"):
        open_weights(source)


def test_torchscript_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder, _ = spleen(tmp_path / "a")
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")
    with pytest.raises(WeightsError, match=r"model\.ts is TorchScript, which is code.*safetensors"):
        read_source(folder)


def test_a_torchscript_under_another_name_does_not_run(tmp_path: Path) -> None:
    folder, theirs = spleen(tmp_path / "a")
    scripted = torch.jit.trace(theirs, torch.zeros(SHAPE))
    scripted.save(str(folder / "models" / "model.pt"))
    with pytest.raises(WeightsError):
        load_trained(folder)


def _named_otherwise(_: Any, meta: dict[str, Any]) -> None:
    """A background under another name must not turn a softmax into two sigmoids."""
    meta["network_data_format"]["outputs"]["pred"]["channel_def"]["0"] = "everything else"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_set("network_def", "spatial_dims", value=2), "spatial_dims"),
        (_set("network_def", "channels", value="many"), "no unet that can be built"),
        (_set("network_def", "colour", value=3), "no such argument"),
        (_set("network_def", "out_channels", value="two"), "out_channels"),
        (_set("network_def", "in_channels", value=2), "states 1 input channels, the network has 2"),
        (_set("network_def", "out_channels", value=3), "names 2 channels, the network has 3 outputs"),
        (_set("preprocessing", value=None), "preprocessing"),
        (lambda _, meta: meta.pop("network_data_format"), "input.modality"),
        (_named_otherwise, "calls none of the channels background"),
        (lambda config, _: config.pop("network_def") and config.pop("network"), "no network_def"),
    ],
)
def test_what_does_not_fit_together_is_told_as_a_line(tmp_path: Path, change: Any, why: str) -> None:
    with pytest.raises(IncompleteSourceError, match=why):
        read_source(_damaged(tmp_path / "a", change))


def test_the_users_lines_mend_what_code_would_tell(tmp_path: Path) -> None:
    folder = _damaged(tmp_path / "a", _set("preprocessing", "transforms", 3, "pixdim", value="$compute()"))
    with pytest.raises(IncompleteSourceError) as error:
        read_source(folder)
    assert "input.spacing_mm" in error.value.missing
    known = {"orientation": "RAS", "spacing_mm": [1, 1, 3], "intensity": {"rule": "window", "low": 0, "high": 9}}
    (folder / "card.yaml").write_text(yaml.safe_dump({"input": known}))
    assert read_source(folder).card.input.spacing_mm == (1.0, 1.0, 3.0)


_WHOLE = {"is_patch_data": False, "spatial_shape": [256, 256, 128]}


@pytest.mark.parametrize(
    ("roi", "image", "expected"),
    [
        ([96, 96, 64], {}, (96, 96, 64)),
        (96, {}, (96, 96, 96)),
        ("@size", {}, (80, 80, 80)),
        # what is seen at once, though images are whole
        ([96, 96, 64], _WHOLE, (96, 96, 64)),
        (None, _WHOLE, (256, 256, 128)),
        (None, {**_WHOLE, "is_patch_data": True}, None),
        (None, {"is_patch_data": False, "spatial_shape": ["16*n", "16*n", 128]}, None),
        # -1 is the whole axis
        ([96, 96, -1], {}, None),
        ("$compute()", _WHOLE, (256, 256, 128)),
        ([96, 96, 10**400], {}, None),
        ([True, 96, 96], {}, None),
        ([96.5, 96, 96], {}, None),
        ([96, 96], {}, None),
    ],
)
def test_the_window_that_a_bundle_was_trained_on(tmp_path: Path, roi: Any, image: Any, expected: Any) -> None:
    def change(config: dict[str, Any], meta: dict[str, Any]) -> None:
        config |= {"size": [80, 80, 80], "inferer": {**config["inferer"], "roi_size": roi}}
        meta["network_data_format"]["inputs"]["image"] |= image

    assert read_source(_damaged(tmp_path / "a", change)).card.input.trained_window_vox == expected


@pytest.mark.parametrize("stated", ["roi_size", "metadata"])
def test_a_bundle_of_whole_images_is_refused_on_crops(tmp_path: Path, stated: str) -> None:
    def change(config: dict[str, Any], meta: dict[str, Any]) -> None:
        config["inferer"] = {**config["inferer"], "roi_size": [256] * 3} if stated == "roi_size" else {}
        meta["network_data_format"]["inputs"]["image"] |= {"is_patch_data": False, "spatial_shape": [256, 256, 256]}

    source = read_source(_damaged(tmp_path / "a", change))
    scheme = LabelScheme(classes=(ClassSpec(name="spleen"),))
    config = PlanConfig(source="a")
    # on the bundle's grid of 1.5 x 1.5 x 2 mm
    few = {"class_volumes_ml": {"spleen": 150.0}, "class_present": {"spleen": 9}}
    crops = make_fingerprint(extent_mm_median=(52.5, 52.5, 70.0), **few)
    with pytest.raises(ContractError, match=r"field of view: the source looks at 256 voxels.* 35 \(14%"):
        make_plan(crops, scheme, config, source)
    whole = make_fingerprint(extent_mm_median=(384.0, 384.0, 512.0), **few)
    assert lines_of(make_plan(whole, scheme, config, source))["field of view"].status == "equal"


def test_a_plan_adopts_a_bundles_contract(tmp_path: Path) -> None:
    """The workspace's plan.source may be the zip file itself."""
    path = zip_folder(spleen(tmp_path / "a")[0], tmp_path / "a.zip", "a/")
    config = PlanConfig(source=str(path))
    assert config.source is not None
    assert read_source(Path(config.source)).weights_path == path / "models/model.pt"
