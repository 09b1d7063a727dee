"""nnU-Net v2 results folders as nnU-Net writes them: plans, dataset, and a checkpoint with its log of numpy numbers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

PLACE = "dynamic_network_architectures.architectures.unet."
SHARED: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "PlainConvUNet": {**SHARED, "n_conv_per_stage": [2, 2, 2]},
    "ResidualEncoderUNet": {**SHARED, "n_blocks_per_stage": [1, 2, 2]},
}
PROPERTIES = {"max": 3000.0, "mean": 100.0, "median": 90.0, "min": -900.0, "std": 50.0}
PROPERTIES |= {"percentile_00_5": -50.0, "percentile_99_5": 300.0}


def plans(architecture: str = "PlainConvUNet", n_channels: int = 1, scheme: str = "CTNormalization") -> dict[str, Any]:
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "patch_size": [16, 32, 32],
        "spacing": [3.0, 0.75, 0.5],
        "normalization_schemes": [scheme] * n_channels,
        "use_mask_for_norm": [False] * n_channels,
        "architecture": {
            "network_class_name": PLACE + architecture,
            "arch_kwargs": deepcopy(ARCHITECTURES[architecture]),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset999_Mini",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {"patch_size": [32, 32], "spacing": [0.75, 0.5]},
            "3d_lowres": {
                "inherits_from": "3d_fullres",
                "spacing": [4.0, 1.5, 1.0],
                "next_stage": "3d_cascade_fullres",
            },
            "3d_fullres": configuration,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "foreground_intensity_properties_per_channel": {str(i): dict(PROPERTIES) for i in range(n_channels)},
    }


def dataset(channels: tuple[str, ...] = ("CT",), labels: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels or {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }


def checkpoint(network: nn.Module, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """What nnU-Net's trainer saves, part by part."""
    optimiser = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": optimiser.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0},
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.6)],
            "ema_fg_dice": [np.float64(0.5)],
            "dice_per_class_or_region": [[np.float64(0.4), np.float32(0.6)], [np.float64(np.nan)]],
            "train_losses": [np.array(0.5), np.arange(3.0)],
            "epoch_start_timestamps": [1.7e9, 1.8e9],
            "flags": [np.bool_(True), np.int64(3)],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {"plans": {}, "configuration": "3d_fullres", "fold": 0, "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **(more or {}),
    }


def reference_network(architecture: str, n_channels: int, n_outputs: int) -> nn.Module:
    """The network of the package that nnU-Net takes it from, with deep supervision as in training."""
    import dynamic_network_architectures.architectures.unet as theirs

    arguments = deepcopy(ARCHITECTURES[architecture])
    arguments |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module: nn.Module = getattr(theirs, architecture)(
            input_channels=n_channels, num_classes=n_outputs, deep_supervision=True, **arguments
        )
    return module


def write_results(
    folder: Path,
    network: nn.Module,
    plan: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    folds: tuple[str, ...] = ("fold_0",),
    name: str = "checkpoint_final.pth",
) -> Path:
    for fold in folds:
        (folder / fold).mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint(network), folder / fold / name)
    (folder / "plans.json").write_text(json.dumps(plan or plans(), indent=4))
    (folder / "dataset.json").write_text(json.dumps(data or dataset(), indent=4))
    return folder
