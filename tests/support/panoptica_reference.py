"""What panoptica 2.1.7 says of the masks of ``lesion_masks``: a second implementation, run once in an environment of
its own, because it wants an older numpy and rich than this package (26-connected components, matched above IoU 0.5).

To make it again: ``Panoptica_Evaluator(InputType.SEMANTIC, ConnectedComponentsInstanceApproximator(),
NaiveThresholdMatching(Metric.IOU, 0.5)).evaluate(prediction, reference)`` for each pair.
"""

from __future__ import annotations

from typing import TypedDict


class Numbers(TypedDict):
    n_reference: int
    n_prediction: int
    tp: int
    pq: float


PANOPTICA: dict[int, Numbers] = {
    0: {"n_reference": 7, "n_prediction": 7, "tp": 1, "pq": 0.08238387379491674},
    1: {"n_reference": 9, "n_prediction": 9, "tp": 5, "pq": 0.34372013307774396},
    2: {"n_reference": 11, "n_prediction": 10, "tp": 5, "pq": 0.29284973530492997},
    3: {"n_reference": 10, "n_prediction": 11, "tp": 3, "pq": 0.1850415569641717},
    4: {"n_reference": 3, "n_prediction": 8, "tp": 0, "pq": 0.0},
    5: {"n_reference": 10, "n_prediction": 11, "tp": 4, "pq": 0.2587246986504996},
    6: {"n_reference": 7, "n_prediction": 8, "tp": 4, "pq": 0.3624619679719653},
    7: {"n_reference": 8, "n_prediction": 9, "tp": 2, "pq": 0.1576524741081703},
}
