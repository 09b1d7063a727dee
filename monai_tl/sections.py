"""What a section of params.yaml is, the kinds of number in it, and the sections that bring the data in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.labels import ClassSpec, LabelScheme, class_faults


def _refuse_truth(value: Any) -> Any:
    # YAML's yes, no, on, off are truth values, and Python would take them for 1 and 0
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Real = Annotated[float, BeforeValidator(_refuse_truth)]
Whole = Annotated[int, Field(strict=True)]
Fraction = Annotated[Real, Field(ge=0.0, le=1.0)]
Positive = Annotated[Whole, Field(ge=1)]
Length = Annotated[Real, Field(gt=0.0, le=100.0)]
Spacing = tuple[Length, Length, Length]


class Section(BaseModel):
    """A part of params.yaml: frozen, nothing extra allowed, every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestConfig(Section):
    """Studies in, cases out.

    Attributes:
        source: Folder of DICOM, or of a data set in Decathlon or nnU-Net layout, relative to the workspace.
        layout: ``auto`` looks for dataset.json.
        key_file: Secret for pseudonyms; outside the repository, mode 0600. Made by ``monai-tl key``.
        classes: What to segment, in the order of label values.
        min_slices: A series with fewer is refused.
        max_rejected_fraction: The stage fails when more than this share of the image series is refused.
    """

    source: str
    layout: Literal["auto", "dicom", "decathlon", "nnunet"] = "auto"
    key_file: str = DEFAULT_KEY_FILE
    classes: tuple[ClassSpec, ...] = Field(min_length=1, max_length=254)
    min_slices: Positive = 5
    max_rejected_fraction: Fraction = 0.5

    @field_validator("classes")
    @classmethod
    def _are_distinct(cls, classes: tuple[ClassSpec, ...]) -> tuple[ClassSpec, ...]:
        if faults := class_faults(classes):
            raise ValueError("\n".join(faults))
        return classes

    @property
    def scheme(self) -> LabelScheme:
        """The classes as a label scheme."""
        return LabelScheme(classes=self.classes)


class SplitConfig(Section):
    """Patients into folds and a test set.

    Attributes:
        seed: Of the draw: the same seed and patients give the same folds.
        n_folds: Folds that the patients outside the test set are dealt into; each is the validation set once.
        test_fraction: Share of the patients that are kept for testing.
        n_train_cases: Keep only so many labelled cases outside the test set, for trials with few labels; null keeps
            all.
        test_ids_file: JSON list of case ids that form the test set; then test_fraction is not used.
    """

    seed: Whole = 0
    n_folds: Annotated[Whole, Field(ge=2, le=20)] = 4
    test_fraction: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.3
    test_ids_file: str | None = None
    n_train_cases: Positive | None = None
