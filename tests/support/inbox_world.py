"""A workspace with an inbox: tiny studies of a bright ball, and a small network with made-up weights."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from dicom_files import write_ct

from monai_tl.dicom.deidentify import create_key
from monai_tl.stages import STAGE_NAMES

N_SLICES, N_PIXELS = 8, 16
CANARIES = ("KANARI", "GELBVOGEL", "4711-0815", "VOGELKLINIK")
"""In every study; nowhere else may they appear but in a SEG."""


def study_uid(number: int) -> str:
    return f"1.2.826.0.1.{number}.5"


def series_uid(number: int) -> str:
    return f"{study_uid(number)}.6"


def ball(number: int, shift_hu: float = 0.0) -> np.ndarray:
    """Stored values (K, rows, columns) uint16."""
    generator = np.random.default_rng(number)
    centre = np.array((N_SLICES, N_PIXELS, N_PIXELS)) / 2 + generator.uniform(-1, 1, 3)
    grid = np.indices((N_SLICES, N_PIXELS, N_PIXELS))
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
    values = 1024 + 40 + shift_hu + 120 * (distance < 3.5) + generator.normal(0, 8, distance.shape)
    return np.clip(values, 0, 4095).astype(np.uint16)


def write_study(folder: Path, number: int, *, shift_hu: float = 0.0, **options: Any) -> list[Path]:
    """One CT series under a UID of its own."""
    tags = {
        "StudyInstanceUID": study_uid(number), "SeriesInstanceUID": series_uid(number),
        "FrameOfReferenceUID": f"{study_uid(number)}.7", "PatientName": f"{CANARIES[0]}^{CANARIES[1]}",
        "PatientID": f"{CANARIES[2]}-{number}", "InstitutionName": CANARIES[3], "PixelSpacing": [4.0, 4.0],
        "SliceThickness": 4.0, "StudyDate": "20260101", "StudyTime": "120000", "AccessionNumber": "", "StudyID": "",
        "PatientBirthDate": "", "PatientSex": "", "ReferringPhysicianName": "", "SeriesNumber": 1,
    }  # fmt: skip
    return write_ct(folder, ball(number, shift_hu), step=(0.0, 0.0, 4.0), **{**tags, **options})


def write_model(folder: Path, fingerprint: Any = None, seed: int = 3) -> Path:
    """A model as ``export`` leaves one, with weights drawn at random."""
    from balls import make_plan

    from monai_tl.networks.builders import build_network
    from monai_tl.networks.groups import named_tensors
    from monai_tl.sources.card import Card, write_source

    plan = make_plan((8, 8, 8)).model_copy(update={"spacing_mm": (4.0, 4.0, 4.0)})
    network = build_network(plan.network, 1, 2, seed=seed)
    contract = {
        "modality": "CT", "channels": ["CT"], "orientation": plan.orientation, "spacing_mm": list(plan.spacing_mm),
        "intensity": plan.intensity.model_dump(), "size_rule": plan.size_rule.model_dump(),
    }  # fmt: skip
    card = Card.model_validate(
        {
            "name": "scratch-0-0", "network": {**plan.network.model_dump(), "n_channels": 1, "n_outputs": 2},
            "weights": {"file": "weights.safetensors", "sha256": "0" * 64}, "licence": "CC0-1.0",
            "citation": "nobody", "input": contract, "classes": ["ball"],
            "fingerprint": None if fingerprint is None else fingerprint.model_dump(mode="json"),
        }
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_source(folder, card, named_tensors(network))
    plan.write(folder / "plan.json")
    return folder


def write_workspace(home: Path, model: Path | None = None, **inbox: Any) -> Path:
    """params.yaml, key, model and an empty inbox; studies settle at once."""
    workspace = home / "ws"
    (workspace / "inbox").mkdir(parents=True)
    create_key(home / "key", seed=0)
    if model is None:
        write_model(workspace / "model")
    else:
        shutil.copytree(model, workspace / "model")
    write_params(home, **inbox)
    return workspace


def write_params(home: Path, **inbox: Any) -> None:
    classes = [{"name": "ball", "structures": ["Ball"]}]
    content: dict[str, Any] = {
        **{name: {} for name in STAGE_NAMES},
        "ingest": {"source": "data", "key_file": str(home / "key"), "classes": classes},
        "plan": {"source": None, "network": {"name": "unet", "arguments": {"channels": [6, 12], "strides": [2]}}},
        "finetune": {"arms": ["scratch"], "folds": [0], "seeds": [0], "strategy": "scratch"},
        "inbox": {"model": "model", "settle_s": 0, "retry_s": 0, **inbox},
    }  # fmt: skip
    (home / "ws/params.yaml").write_text(yaml.safe_dump(content))


def segs(workspace: Path) -> list[Path]:
    return sorted((workspace / "outbox").rglob("*.dcm"))


def sources_of(paths: Sequence[Path]) -> list[str]:
    """SeriesInstanceUID that each SEG refers to, in order."""
    import pydicom

    return sorted(pydicom.dcmread(path).ReferencedSeriesSequence[0].SeriesInstanceUID for path in paths)
