"""MONAI bundles in the forms of the model zoo, small enough for a test, with weights of MONAI's own networks."""

from __future__ import annotations

import json
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.networks import nets
from torch import nn

IMAGE = {"keys": "image"}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"channels": [4, 8], "strides": [2], "num_res_units": 2, "norm": "batch"},
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 2], "blocks_up": [1], "dropout_prob": 0.2},
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, [2, 2, 1]],
        "filters": [4, 8, 8],
        "norm_name": "instance",
        "deep_supervision": False,
        "res_block": True,
    },
    "SwinUNETR": {"feature_size": 12, "use_checkpoint": False},
    "BasicUNet": {"features": [4, 4, 4, 8, 8, 4], "act": ["LeakyReLU", {"negative_slope": 0.1, "inplace": True}]},
    "SegResNetDS": {
        "init_filters": 4,
        "blocks_down": [1, 2, 1],
        "norm": "INSTANCE_NVFUSER",
        "act": ["RELU", {"inplace": True}],
        "dsdepth": 2,
    },
    "UNETR": {
        "img_size": [64, 32, 32],
        "feature_size": 4,
        "hidden_size": 24,
        "mlp_dim": 32,
        "num_heads": 2,
        "proj_type": "conv",
        "norm_name": "instance",
        "res_block": True,
        "dropout_rate": 0.0,
    },
    "AttentionUnet": {"channels": [4, 8, 8], "strides": [2, 2], "dropout": 0.1},
    "VNet": {"act": ["elu", {"inplace": True}], "dropout_prob_down": 0.5, "dropout_prob_up": [0.5, 0.5]},
    "FlexibleUNet": {"backbone": "resnet10", "pretrained": True, "decoder_channels": [8, 8, 4, 4, 4]},
}
"""Class → arguments without sizes."""


def transform(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, **IMAGE, **arguments}


def ct_steps(low: float = -57, high: float = 164) -> list[dict[str, Any]]:
    return [
        transform("LoadImaged"),
        transform("EnsureChannelFirstd"),
        transform("Orientationd", axcodes="RAS"),
        transform("Spacingd", pixdim=[1.5, 1.5, 2.0], mode="bilinear"),
        transform("ScaleIntensityRanged", a_min=low, a_max=high, b_min=0, b_max=1, clip=True),
        transform("EnsureTyped"),
    ]


def inference(target: str, n_channels: int, n_outputs: int, steps: Any) -> dict[str, Any]:
    """The parts that the zoo's inference configurations have in common, all their code included."""
    arguments = NETWORKS[target.rpartition(".")[2]]
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$list(sorted(glob.glob(@output_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": target,
            "spatial_dims": 3,
            "in_channels": n_channels,
            "out_channels": n_outputs,
            **deepcopy(arguments),
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: torch.where(x > 0, 1, 0)"},
            ],
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def metadata(channels: list[str], outputs: list[str], modality: str = "CT", shape: Any = None) -> dict[str, Any]:
    def image(names: list[str], **more: Any) -> dict[str, Any]:
        named = {str(index): name for index, name in enumerate(names)}
        shape_or = shape or [96, 96, 96]
        return {"type": "image", "num_channels": len(names), "spatial_shape": shape_or, "channel_def": named, **more}

    return {
        "version": "0.1.0",
        "copyright": "Copyright (c) nobody",
        "references": ["Nobody et al. 2020"],
        "network_data_format": {
            "inputs": {"image": image(channels, format="hounsfield", modality=modality)},
            "outputs": {"pred": image(outputs, format="segmentation")},
        },
    }


def network_of(config: dict[str, Any], seed: int = 3) -> nn.Module:
    """MONAI's network, built without us and without fetching anything; arguments must be literal."""
    arguments = {key: value for key, value in config["network_def"].items() if not key.startswith("_")}
    if "pretrained" in arguments:
        arguments["pretrained"] = False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: nn.Module = getattr(nets, config["network_def"]["_target_"].rpartition(".")[2])(**arguments)
        for name, tensor in module.state_dict().items():
            # running statistics too, so that a lost buffer shows
            if tensor.is_floating_point() and "running" in name:
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def write_bundle_files(
    folder: Path, config: dict[str, Any], meta: dict[str, Any], state: Any = None, form: str = "json"
) -> Path:
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=4) if form == "json" else yaml.safe_dump(config, sort_keys=False)
    (folder / "configs" / f"inference.{form}").write_text(text)
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta, indent=4))
    (folder / "LICENSE").write_text("                Apache License\n                Version 2.0, January 2004\n")
    (folder / "configs" / "logging.conf").write_text("[handlers]\nargs=(__import__('os').system('touch CANARY'),)\n")
    if state is not None:
        torch.save(state, folder / "models" / "model.pt")
    return folder


def spleen(folder: Path, target: str = "UNet", form: str = "json") -> tuple[Path, nn.Module]:
    """A bundle like spleen_ct_segmentation, and MONAI's network with its weights."""
    config = inference(target, 1, 2, ct_steps())
    module = network_of(config)
    meta = metadata(["image"], ["background", "spleen"])
    return write_bundle_files(folder, config, meta, module.state_dict(), form), module


def zip_folder(folder: Path, out: Path, wrapping: str = "") -> Path:
    """All files of a folder, as the zoo packs them: below one folder."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{wrapping}{path.relative_to(folder).as_posix()}")
    return out
