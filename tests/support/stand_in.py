"""A stage of the stand-in pipeline: reads its inputs, works for a while in child processes, writes its outputs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from monai_tl.parallel import die_with_parent
from monai_tl.progress import Progress


def metrics(digest: str) -> dict[str, Any]:
    summary = {"mean": int(digest[:4], 16) / 65535, "low": None, "high": None, "n": 1, "n_empty": 0, "n_failed": 0}
    record = dict.fromkeys(("dice", "surface_dice", "hd95_mm"), summary)
    return {
        "schema_version": 1,
        "evaluated_on": "test",
        "n_test_cases": 1,
        "n_test_patients": 1,
        "arms": {arm: {**record, "classes": {"liver": record}} for arm in ("transfer", "scratch")},
        "verdict": None,
        "rejected": {},
    }


def look(workspace: Path, weights: str) -> None:
    """Record a look at the one test case, as the real stage does."""
    from monai_tl.config import PredictConfig
    from monai_tl.looks import record_look
    from monai_tl.records import CaseRecord, Provenance

    case = CaseRecord(
        case_id="case-000000000000",
        patient_key="patient-000000000000",
        site="",
        modality="CT",
        has_label=True,
        spacing_mm=(1.0, 1.0, 1.0),
        spatial_shape=(1, 1, 1),
        affine=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        provenance=Provenance(kind="nifti", study="", series="", input_sha256="", image_sha256=""),
    )
    record_look(workspace, [case], {"transfer-0-0": weights}, PredictConfig(), "evaluate")


def main() -> None:
    die_with_parent()
    stage, outs, deps = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
    params = yaml.safe_load(Path("params.yaml").read_text())
    slow, seconds = os.environ.get("STAND_IN_SLOW", ":0").split(":")
    seconds = float(seconds) if stage.startswith(slow) else 0.0
    # a child of its own, as a stage has that works over cases
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds + 0.01})"])
    progress = Progress(stage, total=4)
    for _ in range(4):
        time.sleep(seconds / 4)
        progress.advance("case-000000000000")
    child.wait()
    digest = hashlib.sha256(repr(params.get(stage.split("@")[0])).encode())
    for dep in deps:
        for path in sorted(item for item in [Path(dep), *Path(dep).rglob("*")] if item.is_file()):
            digest.update(path.read_bytes())
    for out in outs:
        path = Path(out)
        if not path.suffix:
            path = path / "result.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps(metrics(digest.hexdigest())))
        elif path.name == "history.csv":
            path.write_text(
                "arm,fold,step,val_dice\ntransfer,0,0,0.1\ntransfer,0,10,0.6\nscratch,0,0,\nscratch,0,10,0.3\n"
            )
        else:
            path.write_text(digest.hexdigest() + "\n")
    if stage == "ingest":
        Path("artifacts/cases/rejected.json").write_text('{"rejected": []}')
    if stage == "preprocess":
        Path("artifacts/prepared/failed.json").write_text('{"rejected": []}')
    if stage == "evaluate":
        Path("reports/html/summary.md").write_text("# Summary\n\nstand-in\n")
        if os.environ.get("STAND_IN_LOOKS"):
            look(Path.cwd(), digest.hexdigest())
        Path("reports/html/report.html").write_text(f"<title>{digest.hexdigest()}</title>\n")


if __name__ == "__main__":
    main()
