"""A finished model as a MONAI bundle: network, weights, preprocessing and facts travel together.

Bundles are written here; ``bundle_reading`` reads them, as data only, since their language runs expressions.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from monai_tl.config import IntensityConfig, PreprocessConfig
from monai_tl.errors import SourceError
from monai_tl.files import write_bytes, write_json, write_text
from monai_tl.networks.builders import find_network
from monai_tl.records import Plan
from monai_tl.sources.audit import load_trained
from monai_tl.sources.bundle_text import describe_model, state_licence
from monai_tl.sources.card import Card
from monai_tl.sources.evaluation_text import describe_evaluation

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
BUNDLE_VERSION = "1.0.0"
METRICS_FILE = "metrics.json"
_TOOLS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


def write_bundle(
    model_folder: Path, out: Path, metrics: Mapping[str, Any] | None = None, arm: str = "", privacy: str = ""
) -> None:
    """Write a MONAI bundle of a model of this pipeline; equal models give equal bytes.

    Args:
        model_folder: A source folder with plan.json, as the finetune stage makes it.
        out: Folder of the bundle; its name is the bundle's name. Made if missing.
        metrics: Content of ``metrics.json`` of the run, for the model card; also kept beside it as
            ``docs/metrics.json``.
        arm: Of the model, in ``metrics``.
        privacy: The card's section on privacy.

    Raises:
        SourceError: The folder is no model of this pipeline, or its weights do not fit.
        DataError: plan.json is missing or damaged.
    """
    network, source = load_trained(model_folder)
    card = source.card
    if card.output != "softmax":
        raise SourceError(f"{model_folder}: only softmax models are exported; fine-tune this source first")
    plan = Plan.read(model_folder / "plan.json")
    write_json(out / "configs" / "metadata.json", _metadata(card, plan))
    write_json(out / "configs" / "inference.json", _inference(card, plan))
    buffer = io.BytesIO()
    # into memory, because torch.save writes the file's name into the file; all names, because MONAI loads strictly
    torch.save(dict(network.state_dict()), buffer)
    write_bytes(out / "models" / "model.pt", buffer.getvalue())
    judged = "" if metrics is None else describe_evaluation(metrics, arm)
    target = find_network(card.network.name).target
    write_text(out / "docs" / "README.md", describe_model(card, plan, model_folder, target, judged, privacy))
    if metrics is not None:
        write_json(out / "docs" / METRICS_FILE, dict(metrics))
    write_text(out / "LICENSE", state_licence(card, model_folder))


def network_config(card: Card) -> dict[str, Any]:
    """The network as a bundle's ``network_def``: MONAI's class, or a plug-in's by its dotted path."""
    spec = find_network(card.network.name)
    arguments = spec.all_arguments(card.network.n_channels, card.network.n_outputs, card.network.arguments)
    return {"_target_": spec.target, **arguments}


def _metadata(card: Card, plan: Plan) -> dict[str, Any]:
    rows = {"0": "background", **{str(value): name for value, name in enumerate(card.classes, start=1)}}
    patch = list(plan.patch_size_vox)
    image = {
        "type": "image",
        "format": "hounsfield" if plan.modality == "CT" else "magnitude",
        "modality": plan.modality,
        "num_channels": card.network.n_channels,
        "spatial_shape": patch,
        "dtype": "float32",
        "value_range": list(plan.intensity.output) if plan.intensity.rule != "zscore" else [],
        "is_patch_data": True,
        "channel_def": {str(index): name for index, name in enumerate(card.input.channels)},
    }
    prediction = {
        "type": "image",
        "format": "segmentation",
        "num_channels": card.network.n_outputs,
        "spatial_shape": patch,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": rows,
    }
    return {
        "schema": SCHEMA,
        "version": BUNDLE_VERSION,
        "changelog": {BUNDLE_VERSION: "written by monai_tl"},
        **{key: version(package) for key, package in _TOOLS.items()},
        "required_packages_version": {"nibabel": version("nibabel")},
        "name": card.name,
        "task": f"Segmentation of {', '.join(card.classes)}",
        "description": card.notes or f"{card.name}: {', '.join(card.classes)} on {plan.modality}",
        "authors": "see docs/README.md",
        "copyright": card.licence,
        "references": [card.citation],
        "intended_use": "Research; not a medical device",
        "image_classes": f"{plan.modality}, {', '.join(card.input.channels)}",
        "label_classes": ", ".join(f"{value} {name}" for value, name in rows.items()),
        "pred_classes": f"{len(rows)} channels, softmax, background first",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
    }


def _preprocessing(plan: Plan) -> list[dict[str, Any]]:
    """The pipeline's steps in MONAI's transforms, each channel for itself.

    A window is scaled before resampling: linear interpolation and linear scaling commute, only the clip must be first.
    """
    rule = plan.intensity
    before, after = _intensity_transforms(rule)
    crop = [] if rule.rule == "window" or plan.foreground == "none" else [_crop(plan)]
    spacing: dict[str, Any] = {"pixdim": plan.spacing_mm, "mode": "bilinear", "padding_mode": "border"}
    return [
        _transform("LoadImaged"),
        _transform("EnsureChannelFirstd"),
        _transform("EnsureTyped", dtype="$torch.float32"),
        _transform("Orientationd", axcodes=plan.orientation),
        *crop,
        *before,
        _transform("Spacingd", **spacing),
        *after,
    ]


def _transform(name: str, key: str = "image", **arguments: Any) -> dict[str, Any]:
    # in full, because MONAI looks a bare name up in all packages whose name begins with monai, and this one does
    return {"_target_": f"monai.transforms.{name}", "keys": key, **arguments}


def _intensity_transforms(rule: IntensityConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What goes before resampling, and after it."""
    first, last = rule.output
    if rule.rule == "window":
        limits: dict[str, Any] = {"a_min": rule.low, "a_max": rule.high, "b_min": first, "b_max": last, "clip": True}
        return [_transform("ScaleIntensityRanged", **limits)], []
    if rule.rule == "minmax":
        scale = _transform("ScaleIntensityd", minv=first, maxv=last, channel_wise=True)
    else:
        scale = _transform("NormalizeIntensityd", nonzero=rule.nonzero, channel_wise=True)
    if rule.low is None:
        return [], [scale]
    clip = _transform("ClipIntensityPercentilesd", lower=rule.low, upper=rule.high, channel_wise=True)
    return [clip], [scale]


def _crop(plan: Plan) -> dict[str, Any]:
    """The foreground box, needed where statistics of the case decide the scale."""
    margin = [math.ceil(PreprocessConfig().crop_margin_mm / size) for size in plan.spacing_mm]
    above = f"$lambda image: image > {plan.foreground_threshold!r}"
    return _transform("CropForegroundd", source_key="image", select_fn=above, margin=margin, allow_smaller=True)


def _postprocessing() -> list[dict[str, Any]]:
    back: dict[str, Any] = {
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": False,
        "to_tensor": True,
    }
    save: dict[str, Any] = {
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "output_dtype": "$np.uint8",
        "resample": False,
    }
    return [
        _transform("Activationsd", "pred", softmax=True),
        _transform("Invertd", "pred", **back),
        _transform("AsDiscreted", "pred", argmax=True),
        _transform("SaveImaged", "pred", **save),
    ]


def _inference(card: Card, plan: Plan) -> dict[str, Any]:
    """``inference.json`` in the form of MONAI's model zoo."""
    padding = "replicate" if plan.size_rule.padding == "edge" else "constant"
    window = {"roi_size": list(plan.patch_size_vox), "sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}
    batches = {"dataset": "@dataset", "batch_size": 1, "shuffle": False}
    weights = {"load_path": "$@bundle_root + '/models/model.pt'", "load_dict": {"model": "@network"}}
    return {
        "imports": ["$import glob", "$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "data_list": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network_config(card),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "monai.transforms.Compose", "transforms": _preprocessing(plan)},
        "dataset": {"_target_": "monai.data.Dataset", "data": "@data_list", "transform": "@preprocessing"},
        "dataloader": {"_target_": "monai.data.DataLoader", **batches},
        "inferer": {"_target_": "monai.inferers.SlidingWindowInferer", **window, "padding_mode": padding},
        "postprocessing": {"_target_": "monai.transforms.Compose", "transforms": _postprocessing()},
        "handlers": [{"_target_": "monai.handlers.CheckpointLoader", **weights}],
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }
