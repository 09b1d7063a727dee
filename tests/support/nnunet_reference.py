"""nnU-Net plans for tests, and what the package that nnU-Net takes its networks from makes of them.

``python tests/support/nnunet_reference.py`` writes the record anew; it needs that package, whose own requirements are
heavy and are not needed here: ``pip install --no-deps dynamic_network_architectures==0.4.4``.
"""

from __future__ import annotations

import hashlib
import json
import pydoc
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RECORD = Path(__file__).with_name("nnunet_reference.json")
VERSION = "0.4.4"
INSTANCE_NORM = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
SHAPE = {
    "n_stages": 4,
    "features_per_stage": [4, 8, 12, 12],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [2, 2, 2],
}
ANISOTROPIC = {
    "n_stages": 5,
    "features_per_stage": [4, 6, 8, 10, 10],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]],
    "n_conv_per_stage_decoder": [1, 2, 1, 1],
}
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("nnunet_plain", {**INSTANCE_NORM, **SHAPE, "n_conv_per_stage": [2, 2, 2, 2]}),
    "plain_anisotropic": ("nnunet_plain", {**INSTANCE_NORM, **ANISOTROPIC, "n_conv_per_stage": [2, 1, 2, 3, 2]}),
    "plain_odd_layers": (
        "nnunet_plain",
        {
            **SHAPE,
            "kernel_sizes": 3,
            "n_conv_per_stage": 1,
            "n_conv_per_stage_decoder": 1,
            "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
            "dropout_op": "torch.nn.modules.dropout.Dropout3d",
            "dropout_op_kwargs": {"p": 0.2},
            "nonlin": "torch.nn.modules.activation.ELU",
            "nonlin_first": True,
        },
    ),
    "residual": ("nnunet_residual", {**INSTANCE_NORM, **SHAPE, "n_blocks_per_stage": [1, 3, 2, 1]}),
    "residual_anisotropic": (
        "nnunet_residual",
        {**INSTANCE_NORM, **ANISOTROPIC, "n_blocks_per_stage": [1, 2, 1, 2, 1], "stem_channels": 6},
    ),
}
"""Name → network here, arguments as in plans.json."""
SIZE = (16, 32, 32)


def fill(module: nn.Module) -> None:
    """Weights that follow from each tensor's first name alone, so that two builds of a network agree."""
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen or not tensor.is_floating_point():
            continue
        seen.add(id(tensor))
        phase = zlib.crc32(name.encode()) % 1000
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7131 + phase)
        scale, offset = (1.5 / (tensor[0].numel() ** 0.5), 0.0) if tensor.ndim > 1 else (0.2, 0.6)
        with torch.no_grad():
            tensor.copy_((wave * scale + offset).reshape(tensor.shape))


def example() -> Tensor:
    """(1, 2, *SIZE), without a random generator."""
    steps = torch.arange(2 * SIZE[0] * SIZE[1] * SIZE[2], dtype=torch.float64)
    return torch.sin(steps * 1.2345 + torch.cos(steps * 0.01)).reshape(1, 2, *SIZE).float()


def describe(module: nn.Module) -> dict[str, Any]:
    """Names, shapes and some logits of a network of two channels and three classes."""
    fill(module)
    names = "".join(f"{name} {tuple(tensor.shape)}\n" for name, tensor in module.state_dict().items())
    with torch.inference_mode():
        logits = module.eval()(example())
    return {
        "n_names": names.count("\n"),
        "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "logits": [round(float(value), 6) for value in logits[0].flatten()[::997]],
    }


def build_original(network: str, arguments: dict[str, Any], deep_supervision: bool = False) -> nn.Module:
    """The package's own network, called as nnU-Net calls it: layers are looked up by their dotted names."""
    from dynamic_network_architectures.architectures import unet

    factory = {"nnunet_plain": unet.PlainConvUNet, "nnunet_residual": unet.ResidualEncoderUNet}[network]
    layers = {key: arguments.get(key) for key in ("conv_op", "norm_op", "dropout_op", "nonlin")}
    layers["conv_op"] = layers["conv_op"] or "torch.nn.modules.conv.Conv3d"
    found = {key: pydoc.locate(name) if name else None for key, name in layers.items()}
    return factory(input_channels=2, num_classes=3, deep_supervision=deep_supervision, **{**arguments, **found})


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {name: describe(build_original(*plan)) for name, plan in PLANS.items()}
    RECORD.write_text(json.dumps({"package": f"dynamic_network_architectures {VERSION}", **record}, indent=1) + "\n")
