"""When labels that came back start a training: enough of them, or one and a drift alarm."""

from __future__ import annotations

from typing import Any

import pytest

from flows.retraining import _is_time
from monai_tl.config import Params, parse_params


def params(**inbox: Any) -> Params:
    return parse_params(
        {
            "ingest": {"source": "data", "classes": [{"name": "liver"}]},
            "plan": {"source": "s"},
            "finetune": {"arms": ["scratch", "transfer"]},
            "inbox": inbox,
        }
    )


@pytest.mark.parametrize(
    ("n_cases", "is_alarm", "expected"),
    [(0, False, False), (0, True, False), (1, False, False), (1, True, True), (19, False, False), (20, False, True)],
)
def test_enough_labels_or_one_and_an_alarm(n_cases: int, is_alarm: bool, expected: bool) -> None:
    assert _is_time({"n_cases": n_cases}, params(retrain_after=20), is_alarm) is expected


def test_whoever_asked_for_no_training_gets_none() -> None:
    assert not _is_time({"n_cases": 99}, params(), is_alarm=True)
