"""What is known of a model's privacy: the guarantee it was trained under, and what an attacker got out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from monai_tl.errors import DataError
from monai_tl.files import read_json
from monai_tl.records import Record

AUDIT_FILE = "reports/privacy.json"
"""In the workspace."""


class Guarantee(Record):
    """Differential privacy of a training, of one network's weights; in ``training.json`` under ``privacy``.

    Attributes:
        epsilon, delta: Whatever the others' data: adding or removing one patient changes the chance of any outcome by
            at most the factor ``exp(epsilon)``, but for a chance of ``delta``.
        unit: Whose data is protected: all cases of a patient together.
        accountant: What counted epsilon.
        sample_rate: Chance of each patient to be in a step.
        noise_multiplier: Standard deviation of the noise, by ``clip_norm``.
        clip_norm: Longest gradient of a patient.
        n_steps: That were taken.
        n_patients: Whose cases were trained on.
    """

    epsilon: float
    delta: float
    unit: Literal["patient"] = "patient"
    accountant: Literal["rdp"] = "rdp"
    sample_rate: float
    noise_multiplier: float
    clip_norm: float
    n_steps: int
    n_patients: int


class Estimate(Record):
    """A number with its interval over patients; null where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Attack(Record):
    """One way to tell members from others, and how far it got.

    Attributes:
        name: ``loss``: by the network's loss of a case. ``likelihood_ratio``: the loss held against that of reference
            networks that were trained on the case, or were not.
        auc: 0.5 is guessing, 1 certainty.
        true_positive_rate: Share of the members found at the false positive rate of the audit.
        n_members, n_others: Patients that have a score.
        finest_rate: One of the others, as a share.
        rate_bound: The true false positive rate at the threshold used may be as large as this.
        n_references: Networks that a case is held against, on average.
        has_members_in_references: Whether some of them were trained on the case.
    """

    name: Literal["loss", "likelihood_ratio"]
    auc: Estimate
    true_positive_rate: Estimate
    n_members: int
    n_others: int
    finest_rate: float | None
    rate_bound: float | None
    n_references: float = 0.0
    has_members_in_references: bool = False


class ModelAudit(Record):
    """One network.

    Attributes:
        model: Folder below ``artifacts/models``.
        weights_sha256: Of the weights attacked.
        others: Where those come from who were not trained on.
        guarantee: Null without differential privacy.
        attacks: Those that could be made.
        notes: What the numbers do not say, in sentences.
    """

    model: str
    weights_sha256: str
    others: Literal["test", "validation", "test and validation"]
    guarantee: Guarantee | None
    attacks: tuple[Attack, ...]
    notes: tuple[str, ...] = ()


class PrivacyAudit(Record):
    """``privacy.json``.

    Attributes:
        false_positive_rate: At which members are looked for.
        confidence: Of the intervals.
        models: In the order of their names.
    """

    schema_version: Literal[1] = 1
    false_positive_rate: float
    confidence: float
    models: tuple[ModelAudit, ...]


def read_guarantee(model: Path) -> Guarantee | None:
    """What a network was trained under; None without differential privacy.

    Args:
        model: Folder of the finetune stage.

    Raises:
        DataError: ``training.json`` is missing or damaged.
    """
    try:
        found = read_json(model / "training.json").get("privacy")
        return None if found is None else Guarantee.model_validate(found)
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{model.name} has no readable training.json; run finetune again") from None
