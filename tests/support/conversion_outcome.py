"""Whether a conversion did what it should: volumes against the standard's equations, refusals against their cause."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from damage import Outcome, Refusal
from dicom_bytes import TOKEN, Grid

_FILE = re.compile(r"case-[0-9a-f]{12}(_label)?\.nii\.gz|index\.json|rejected\.json")
_ITEM = re.compile(r"(file|series|label)-[0-9a-f]{12}")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TELLTALES = (b"CANARY", TOKEN.encode(), b"canary", b"escape", b"\xe2\x80\xae", b'CON"')


def faults(out: Path, outcomes: Sequence[Outcome], good: Sequence[Grid]) -> list[str]:
    """What is wrong in OUT; empty when it is one of the outcomes, with the good volumes beside it."""
    found = names_and_leaks(out)
    rejected = json.loads((out / "rejected.json").read_text())["rejected"]
    found += [f"bad item {one}" for one in rejected if not _ITEM.fullmatch(one["item"]) or one["n_files"] < 1]
    found += [f"no sentence: {one['reason']!r}" for one in rejected if len(one["reason"]) <= 20]
    volumes = _volumes(out)
    tried = [misses(outcome, rejected, volumes, good) for outcome in outcomes]
    if all(tried):
        found += min(tried, key=len)
        found += [f"refused: {one['kind']} {one['code']}: {one['reason']}" for one in rejected]
    return found


def names_and_leaks(out: Path) -> list[str]:
    """Files that have no business in OUT, and identifying text in a name or in the content, packed or not."""
    found = []
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not _FILE.fullmatch(name) or not path.is_file() or path.is_symlink():
            found.append(f"unexpected {name!r} in OUT")
        content = path.read_bytes()
        content += gzip.decompress(content) if name.endswith(".gz") else b""
        found += [f"{name} holds {word!r}" for word in _TELLTALES if word in content]
    listed = json.loads((out / "index.json").read_text())["volumes"]
    files = {one[key] for one in listed for key in ("file", "label_file")} - {None}
    there = {path.name for path in out.glob("*.nii.gz")}
    return found + [f"index.json and files differ: {sorted(files ^ there)}"] * (files != there)


def _volumes(out: Path) -> list[tuple[Any, Any | None]]:
    found = []
    for one in json.loads((out / "index.json").read_text())["volumes"]:
        label = nibabel.load(out / one["label_file"]) if one["label_file"] else None
        found.append((nibabel.load(out / one["file"]), label))
    return found


def misses(
    outcome: Outcome, rejected: list[dict[str, Any]], volumes: list[tuple[Any, Any | None]], good: Sequence[Grid]
) -> list[str]:
    """How refusals and volumes, images with or without a label, differ from an outcome with the good beside it."""
    wanted = [*good, *(one for one in outcome if isinstance(one, Grid))]
    found = _unmatched(wanted, volumes)
    left = list(rejected)
    for refusal in (one for one in outcome if isinstance(one, Refusal)):
        fitting = [one for one in left if one["kind"] == refusal.kind and one["code"] in refusal.codes]
        if len(fitting) != refusal.n_items:
            found.append(
                f"{len(fitting)} in place of {refusal.n_items} refusals {refusal.kind} {sorted(refusal.codes)}"
            )
        found += [f"the reason does not say {refusal.says!r}: {one['reason']}" for one in fitting
                  if not re.search(refusal.says, one["reason"])]  # fmt: skip
        left = [one for one in left if one not in fitting]
    return found + [f"refused as well: {one['kind']} {one['code']}" for one in left]


def _unmatched(wanted: list[Grid], volumes: list[tuple[Any, Any | None]]) -> list[str]:
    left = list(volumes)
    found = []
    for number, grid in enumerate(wanted):
        fitting = [one for one in left if _shows(grid, *one)]
        if len(fitting) != 1:
            found.append(f"volume {number} of {len(wanted)} (the good ones first) is shown by {len(fitting)} files")
        left = [one for one in left if one not in fitting]
    return found + [f"a volume that nothing was written for, shape {image.shape}" for image, _ in left]


def _shows(grid: Grid, image: Any, label: Any | None) -> bool:
    """Each voxel that was written lies where DICOM says, with its value and its label, and there are no others."""
    if image.ndim != 3 or np.prod(image.shape) != grid.values.size or nibabel.aff2axcodes(image.affine) != tuple("RAS"):
        return False
    k, row, column = np.indices(grid.values.shape).reshape(3, -1)
    world = _LPS_TO_RAS @ grid.affine_lps @ np.stack([column, row, k, np.ones_like(k)])
    index = np.rint(np.linalg.inv(image.affine) @ world).astype(int)
    if np.abs(image.affine @ index - world).max() > 1e-3 or (image.shape <= index[:3].T).any() or index[:3].min() < 0:
        return False
    if not np.array_equal(np.asanyarray(image.dataobj)[tuple(index[:3])], grid.values.ravel()):
        return False
    if label is None or grid.label is None:
        return label is None and grid.label is None
    drawn = np.asanyarray(label.dataobj)
    same_grid = drawn.shape == image.shape and np.array_equal(label.affine, image.affine) and drawn.dtype == np.uint8
    return same_grid and np.array_equal(drawn[tuple(index[:3])], grid.label.ravel())


def tree(root: Path, leave_out: Sequence[str] = ()) -> dict[bytes, tuple[Any, ...]]:
    """All entries below a folder by name, with kind, size, time of change and content; links are not followed."""
    found: dict[bytes, tuple[Any, ...]] = {}
    pending = [os.fsencode(root)]
    while pending:
        for entry in os.scandir(pending.pop()):
            name = os.path.relpath(entry.path, os.fsencode(root))
            if os.fsdecode(name) in leave_out:
                continue
            facts = entry.stat(follow_symlinks=False)
            content: Any = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(entry.path)
            elif stat.S_ISREG(facts.st_mode):
                with open(entry.path, "rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
            elif stat.S_ISDIR(facts.st_mode):
                pending.append(entry.path)
            found[name] = (facts.st_mode, facts.st_size, facts.st_mtime_ns, content)
    return found
