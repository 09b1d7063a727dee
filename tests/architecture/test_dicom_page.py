"""The pages on DICOM name every code that an input can be refused with, and docs/dicom.md every tag that is read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from monai_tl.dicom.header import TAG_OF

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/dicom.md").read_text(encoding="utf-8")
# faults of the command's own arguments, not of the input
ARGUMENTS = {"missing_folder"}


def codes() -> set[str]:
    found = set()
    for path in (ROOT / "monai_tl/dicom").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("DicomError", "LabelError"):
                found |= {one.value for one in node.args[1:2] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    return found - ARGUMENTS


def test_each_code_is_explained():
    found = codes()
    assert len(found) > 30
    # what de-identification alone refuses stands on its own page
    pages = PAGE + (ROOT / "docs/deidentification.md").read_text(encoding="utf-8")
    assert sorted(code for code in found if f"`{code}`" not in pages) == []


def test_each_tag_that_is_read_is_explained():
    table = PAGE[PAGE.index("## What happens to each tag") : PAGE.index("## Labels")]
    assert sorted(keyword for keyword in TAG_OF if not re.search(rf"\b{keyword}\b", table)) == []
