"""Ranking on real hippocampi: the published hippodeep weights against the same weights shuffled within each tensor."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from rankable import write_fresh, write_shuffled

from monai_tl.commands import rank
from monai_tl.config import parse_params
from monai_tl.dataset.manifest import read_manifest
from monai_tl.dataset.nifti import read_image, write_image
from monai_tl.dataset.splits import split_patients
from monai_tl.dataset.transforms import to_matrix
from monai_tl.geometry import spacing_of
from monai_tl.labels import ClassSpec, LabelScheme
from monai_tl.networks.builders import register_network
from monai_tl.records import CaseRecord, Dataset, Provenance

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "hippodeep"
SHARED = Path(os.environ.get("MONAI_TL_SHARED", ROOT.parent / "shared"))
N_CASES, N_TEST = 4, 2
SCHEME = LabelScheme(classes=(ClassSpec(name="anterior"), ClassSpec(name="posterior")))

sys.path.insert(0, str(EXAMPLE))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    weights = SHARED / "weights" / "hippodeep" / "weights.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is absent; set MONAI_TL_SHARED")
    from monai_tl_hippodeep import SPEC

    register_network("hippodeep", SPEC)
    folder = tmp_path / "sources" / "hippodeep"
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLE / "card.yaml", folder)
    shutil.copy(weights, folder)
    write_shuffled(folder.parent / "shuffled", folder)
    write_fresh(folder.parent / "fresh", folder)
    return folder.parent


def write_hippocampi(workspace: Path) -> None:
    """Real cases as the ingest stage would leave them."""
    folder = workspace / "artifacts/cases"
    case_ids = []
    for number, path in enumerate(sorted((SHARED / "data/hippocampus/images").glob("*.nii.gz"))[: N_CASES + N_TEST]):
        image, affine = read_image(path)
        label = np.asarray(nib.load(path.parents[1] / "labels" / path.name).dataobj).astype(np.uint8)
        case_id = f"case-{number:012x}"
        write_image(folder / case_id / "image.nii.gz", image, affine)
        write_image(folder / case_id / "label.nii.gz", label, affine)
        CaseRecord(
            case_id=case_id,
            patient_key=f"patient-{number:012x}",
            site="site",
            modality="MR",
            has_label=True,
            spacing_mm=spacing_of(affine),
            spatial_shape=label.shape,
            affine=to_matrix(affine),
            class_voxels={name: int((label == value).sum()) for value, name in enumerate(SCHEME.names, start=1)},
            provenance=Provenance(kind="nifti", study="", series="", input_sha256="", image_sha256=f"{number:064x}"),
        ).write(folder / case_id / "case.json")
        case_ids.append(case_id)
    dataset = Dataset(modality="MR", n_channels=1, scheme=SCHEME, key_id="0" * 8, case_ids=tuple(case_ids))
    dataset.write(folder / "dataset.json")


def test_hippodeep_is_ranked_above_its_shuffled_self(sources: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    write_hippocampi(workspace)
    content = {
        "ingest": {"source": "data", "classes": [spec.model_dump(mode="json") for spec in SCHEME.classes]},
        "split": {"n_folds": 2, "test_fraction": N_TEST / (N_CASES + N_TEST)},
        # crops are smaller than the source's window; passing them as they are takes a third of the time
        "plan": {"source": str(sources / "hippodeep"), "accept_broken": ["field of view"]},
        "finetune": {"max_steps": 60, "head_steps": 30, "learning_rate": 5e-4, "batch_size": 1, "n_threads": 2},
        "predict": {"n_threads": 2, "overlap": 0.25},
        "evaluate": {"n_bootstrap": 500},
    }
    (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    params = parse_params(content)
    split = split_patients(read_manifest(workspace / "artifacts/cases").cases, params.split)
    split.write(workspace / "artifacts/split/split.json")
    names = ("shuffled", "fresh", "hippodeep")
    ranking = rank.run([sources / name for name in names], workspace, params, n_cases=N_CASES, steps=0)
    print((workspace / "reports/rank/rank.md").read_text())
    found = {source.name: source for source in ranking.sources}
    assert all(source.share_body == 1.0 for source in ranking.sources)
