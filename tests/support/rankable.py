"""A workspace of balls as the ingest and split stages would leave it, and sources of known worth for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from balls import make_arrays, make_plan, train_scratch, write_workspace
from safetensors.torch import load_file

from monai_tl.config import Params, parse_params
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import write_image
from monai_tl.dataset.splits import split_patients
from monai_tl.dataset.transforms import to_matrix
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import build_network
from monai_tl.networks.groups import named_tensors
from monai_tl.records import CaseRecord, Dataset, Provenance
from monai_tl.sources.card import Source, read_source, write_source

SCHEME = LabelScheme(classes=(ClassSpec(name="ball"),))
SPACING = 2.0


def write_ball_cases(workspace: Path, n_cases: int, first: int = 100) -> None:
    """``artifacts/cases``: one ball of 100 HU above its surroundings a case, each case a patient."""
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    folder = workspace / "artifacts/cases"
    case_ids = []
    for number in range(first, first + n_cases):
        image, label = make_arrays(number)
        case_id = f"case-{number:012x}"
        write_image(folder / case_id / "image.nii.gz", np.rint(-100 + 400 * image[0]).astype(np.int16), affine)
        write_image(folder / case_id / "label.nii.gz", label, affine)
        CaseRecord(
            case_id=case_id,
            patient_key=f"patient-{number:012x}",
            site="site-a",
            modality="CT",
            has_label=True,
            spacing_mm=(SPACING, SPACING, SPACING),
            spatial_shape=label.shape,
            affine=to_matrix(affine),
            class_voxels={"ball": int(label.sum())},
            provenance=Provenance(kind="nifti", study="", series="", input_sha256="", image_sha256=f"{number:064x}"),
        ).write(folder / case_id / "case.json")
        case_ids.append(case_id)
    dataset = Dataset(modality="CT", n_channels=1, scheme=SCHEME, key_id="0" * 8, case_ids=tuple(case_ids))
    dataset.write(folder / "dataset.json")


def write_rankable(workspace: Path, n_cases: int = 20, test_fraction: float = 0.2, **finetune: object) -> Params:
    """Cases, split and params.yaml."""
    write_ball_cases(workspace, n_cases)
    settings = {"max_steps": 60, "head_steps": 20, "warmup_steps": 3, "n_threads": 1, "learning_rate": 0.003,
                "arms": ["scratch"]}  # fmt: skip
    content = {
        "ingest": {"source": "data", "classes": [{"name": "ball", "values": [1]}]},
        "split": {"n_folds": 2, "test_fraction": test_fraction},
        "plan": {"source": None, "network": {"name": "basic_unet"}},
        "finetune": {**settings, **finetune},
        "predict": {"n_threads": 1, "overlap": 0.25},
        "evaluate": {"n_bootstrap": 1000},
    }
    (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    params = parse_params(content)
    split = split_patients(read_manifest(workspace / "artifacts/cases").cases, params.split)
    split.write(workspace / "artifacts/split/split.json")
    return params


def write_trained(folder: Path, n_steps: int = 60) -> Path:
    """A source trained on other balls."""
    return train_scratch(write_workspace(folder, make_plan((20, 20, 20))), max_steps=n_steps, validate_every=n_steps)


def write_shuffled(folder: Path, trained: Path, seed: int = 0) -> Source:
    """The same values in each tensor, in another order: same statistics, nothing learnt."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: tensor.reshape(-1)[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in load_file(trained / "weights.safetensors").items()
    }
    return write_source(folder, read_source(trained).card, state)


def write_fresh(folder: Path, trained: Path, seed: int = 7) -> Source:
    """The same network as it is before any training."""
    card = read_source(trained).card
    network = build_network(card.network.config, card.network.n_channels, card.network.n_outputs, seed)
    return write_source(folder, card, named_tensors(network))
