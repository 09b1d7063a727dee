"""Each network of the table in small, under several arguments."""

from __future__ import annotations

from typing import Any

from nnunet_reference import PLANS

_SWIN = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
_UNETR = {"img_size": [32, 16, 16], "hidden_size": 24, "num_heads": 2, "mlp_dim": 32, "feature_size": 4}
_THIN = [8, 8, 4, 4, 4]

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"channels": [4, 8], "strides": [2]}),
    ("unet", {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2, "norm": "batch"}),
    ("basic_unet", {"features": [4, 4, 4, 8, 8, 4]}),
    ("segresnet", {"blocks_down": [1, 1], "blocks_up": [1]}),
    ("dynunet", {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]}),
    (
        "dynunet",
        {
            "kernel_size": [[3, 3, 1], 3, 3],
            "strides": [1, [2, 2, 1], 2],
            "upsample_kernel_size": [[2, 2, 1], 2],
            "filters": [4, 8, 8],
            "res_block": True,
        },
    ),
    ("segresnet_ds", {"init_filters": 4, "blocks_down": [1, 1]}),
    ("segresnet_ds", {"init_filters": 4, "blocks_down": [1, 2, 1], "blocks_up": [1, 2], "resolution": [1, 1, 4]}),
    ("segresnet_ds", {"init_filters": 4, "blocks_down": [1, 1, 1], "resolution": [1, 1, 2.5], "norm": "instance"}),
    ("attention_unet", {"channels": [4, 8], "strides": [2]}),
    (
        "attention_unet",
        {
            "channels": [4, 8, 8, 8],
            "strides": [2, [2, 2, 1], 2],
            "kernel_size": [3, 3, 1],
            "up_kernel_size": 5,
            "dropout": 0.1,
        },
    ),
    ("vnet", {"act": "prelu"}),
    ("swin_unetr", _SWIN),
    (
        "swin_unetr",
        {**_SWIN, "depths": [2, 1, 1, 1], "use_v2": True, "downsample": "mergingv2", "patch_norm": True},
    ),
    ("unetr", _UNETR),
    ("unetr", {**_UNETR, "img_size": 16, "proj_type": "perceptron", "conv_block": False, "res_block": False}),
    ("flexible_unet", {"backbone": "resnet10", "decoder_channels": _THIN}),
    ("flexible_unet", {"backbone": "efficientnet-b0", "decoder_channels": _THIN}),
    *PLANS.values(),
]
"""Name and arguments."""
