"""``monai-tl models``: the table of registered models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_tl.commands import registry


@pytest.mark.parametrize(
    ("verdict", "cell"),
    [
        ({"verdict": "gain", "difference": 0.125}, "(+0.125)"),
        ({"verdict": "withheld", "difference": None}, "| withheld |"),
        ({"verdict": "withheld"}, "| withheld |"),
        ({}, "| none |"),
    ],
)
def test_a_model_without_a_comparable_case_has_a_row_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: dict[str, Any], cell: str
) -> None:
    version = registry.Version("v0.0.1", "0" * 40, is_prod=True, is_candidate=False, record={"verdict": verdict})
    monkeypatch.setattr(registry, "versions", lambda _: [version])
    (row,) = [line for line in registry.describe_models(tmp_path).splitlines() if line.startswith("| v0.0.1")]
    assert cell in row
