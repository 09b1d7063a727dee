"""Cohorts of tiny cases for the benchmark of scale: DICOM studies in a workspace, and NIfTI pairs."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import ROOT
from monai_tl.dicom.rtstruct_writing import write_rtstruct
from monai_tl.dicom.write import IMPLEMENTATION_CLASS_UID, SeriesInfo, derive_uid, write_series
from monai_tl.parallel import map_cases

SHAPE = (16, 16, 6)
"""Columns, rows, slices; as few slices as make a volume, and one more."""
SPACING_MM = (2.0, 2.0, 3.0)
_TRAIN_SHARE = 50
_FORMS = 4
_UID = re.compile(rb"2\.25\.\d{20,}")
STUDIES_AT_ONCE = 250
SCALE_STAGE = "measured.py"


def n_studies(n_cases: int) -> int:
    """Studies of which so many cases are the test set: one in fifty more is there to train on."""
    return n_cases + max(2, n_cases // _TRAIN_SHARE)


def settings(n_cases: int) -> dict[str, Any]:
    """What params.yaml holds: one arm of the smallest network, trained for two steps."""
    return {
        "ingest": {"source": "data", "layout": "dicom", "classes": [{"name": "box", "structures": ["box"]}]},
        "split": {"n_folds": 2, "test_fraction": n_cases / n_studies(n_cases)},
        "plan": {"source": None, "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2]}}},
        "finetune": {
            "arms": ["scratch"],
            "max_steps": 2,
            "head_steps": 1,
            "validate_every": 2,
            "warmup_steps": 0,
            "n_threads": 1,
        },
        "predict": {"n_threads": 1, "overlap": 0.5},
        "export": {"arm": "scratch"},
    }


def make_workspace(root: Path, n_cases: int) -> Any:
    """A workspace in git and DVC with the studies in its data, whose stages say what they took; see scale_stage.py.

    Args:
        root: Gets ``site`` (the package as a wheel installs it), the key and ``workspace``.
        n_cases: Of its test set.
    """
    import yaml
    from workspaces import Place, make_site

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    place = Place(root / "workspace", make_site(root / "site"))
    Place(root, place.site).run("monai_tl", "init", place.folder.name)
    secret = root / "pseudonym.key"
    Place(root, place.site).run("monai_tl", "key", str(secret), "--demo-seed", "0")
    params = yaml.safe_load((place.folder / "params.yaml").read_text())
    for section, values in settings(n_cases).items():
        params[section] = {**params.get(section, {}), **values}
    params["ingest"]["key_file"] = str(secret)
    (place.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    place.run("monai_tl", "init", "--refresh", ".")
    shutil.copyfile(ROOT / "benchmarks/scale_stage.py", place.folder / SCALE_STAGE)
    pipeline = (place.folder / "dvc.yaml").read_text()
    (place.folder / "dvc.yaml").write_text(pipeline.replace("python -m monai_tl stage", f"python {SCALE_STAGE}"))
    write_studies(place.folder / "data", n_studies(n_cases))
    return place


def write_studies(folder: Path, count: int, first: int = 0) -> None:
    """Studies of a CT series with an RTSTRUCT that outlines a box in it; each of another patient and other values."""
    starts = range(first, first + count, STUDIES_AT_ONCE)
    numbers = [range(start, min(start + STUDIES_AT_ONCE, first + count)) for start in starts]
    for _ in map_cases(partial(_write_some, folder=folder), numbers):
        pass


def _write_some(numbers: range, folder: Path) -> None:
    """Studies by copying one of each form of the box, each with UIDs, a patient and pixels of its own."""
    models = {form: _model(form) for form in range(_FORMS)}
    for number in numbers:
        image, _ = _phantom(number)
        slices = image.transpose(2, 1, 0)
        # a folder for a hundred studies, as an archive has them
        place = folder / f"{number // 100:04d}" / f"{number:06d}"
        (place / "CT").mkdir(parents=True)
        for name, content in models[number % _FORMS].items():
            own = _UID.sub(lambda found, number=number: _renamed(found[0], number), content)
            for who in (b"S%06d", b"Scale^%06d"):
                own = own.replace(who % 0, who % number)
            if name.startswith("CT/"):
                pixels = slices[int(name[-8:-4]) - 1].tobytes()
                own = own[: -len(pixels)] + pixels
            (place / name).write_bytes(own)


def _renamed(uid: bytes, number: int) -> bytes:
    return uid if uid == IMPLEMENTATION_CLASS_UID.encode() else uid[:-6] + b"%06d" % number


def _model(form: int) -> dict[str, bytes]:
    """The files of a study with such a box, by name; its patient is number 0."""
    image, box = _phantom(form)
    study, frame = derive_uid("scale", str(form), "study"), derive_uid("scale", str(form), "frame")
    who = {"PatientID": "S000000", "PatientName": "Scale^000000", "Manufacturer": "none"}
    info, outlines = (
        SeriesInfo("CT", study, derive_uid("scale", str(form), kind), frame, who) for kind in ("image", "outlines")
    )
    with tempfile.TemporaryDirectory(prefix="monai_tl_bench_") as name:
        place = Path(name)
        # stored as signed numbers, whatever the noise is
        image[0, 0, 0] = -1
        geometry = write_series(place / "CT", image.transpose(2, 1, 0), np.diag([*SPACING_MM, 1.0]), info)
        write_rtstruct(place / "RTSTRUCT.dcm", {"box": box.transpose(2, 1, 0)}, geometry, outlines)
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.dcm")}


def _phantom(number: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Columns × rows × slices of noise with a brighter box, and the box."""
    generator = np.random.default_rng(number)
    box = np.zeros(SHAPE, bool)
    box[3 : 6 + number % _FORMS, 4:9, 1:5] = True
    return (generator.normal(40, 20, SHAPE) + 80 * box).astype(np.int16), box


def make_nifti_folder(root: Path, n_cases: int) -> None:
    """A workspace of NIfTI pairs in the Decathlon's layout, of which ingest alone is run."""
    import nibabel
    import yaml

    shutil.rmtree(root, ignore_errors=True)
    pairs: list[dict[str, str]] = []
    for kind in ("imagesTr", "labelsTr"):
        (root / "data" / kind).mkdir(parents=True)
    for number in range(n_cases):
        name = f"case_{number:05d}.nii.gz"
        image, box = _phantom(number)
        for kind, values in (("imagesTr", image), ("labelsTr", box.astype(np.uint8))):
            nifti = nibabel.Nifti1Image(values, np.diag([*SPACING_MM, 1.0]))
            (root / "data" / kind / name).write_bytes(gzip.compress(nifti.to_bytes(), 1))
        pairs.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    listed = {"name": "tiny", "modality": {"0": "CT"}, "training": pairs}
    (root / "data/dataset.json").write_text(json.dumps(listed))
    params = settings(n_cases)
    params["ingest"] = {"source": "data", "classes": [{"name": "box"}], "key_file": str(root / "pseudonym.key")}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copyfile(ROOT / "benchmarks/scale_stage.py", root / SCALE_STAGE)


def use_support() -> None:
    """Let this process import what the pipeline tests make workspaces with."""
    support = str(ROOT / "tests/support")
    if support not in sys.path:
        sys.path.insert(0, support)
