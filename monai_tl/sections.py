"""What a section of params.yaml is, the kinds of number in it, and the sections that bring the data in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from monai_tl import DEFAULT_KEY_FILE
from monai_tl.errors import ConfigError
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


class PacsConfig(Section):
    """A PACS with DICOMweb. A password is never here: ``MONAI_TL_PACS_AUTH=name:password`` in the environment.

    Attributes:
        url: Root of QIDO-RS, WADO-RS and STOW-RS, e.g. ``https://pacs.example/dicom-web``.
        fetch: Bring new studies into the folder.
        store: Send each SEG back, and see that it is stored.
        modality: Only studies with a series of it; null asks for the model's.
        days: Only studies of so many days, today included; null for all.
        timeout_s: Longest silence of the PACS, s.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/\S*)?$")]
    fetch: bool = True
    store: bool = True
    modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")] | None = None
    days: Positive | None = 3
    timeout_s: Annotated[Real, Field(gt=0.0, le=3600.0)] = 30.0


class InboxConfig(Section):
    """New studies in, DICOM SEG out: what ``monai-tl inbox`` does.

    Attributes:
        folder: Where studies arrive, any nesting; only read, unless a PACS is fetched from.
        outbox: Where results and the ledger lie.
        model: Folder of the model, e.g. ``artifacts/export/model``; null takes the version in stage ``prod``.
        settle_s: A study is whole when nothing of it has changed for so long, s.
        max_attempts: A study is given up after so many.
        retry_s: Pause before the second attempt, s; it doubles each time.
        every_s: Pause between scheduled runs, s.
        identity: ``source`` keeps the patient's identity in the SEG, which a PACS needs.
        mode: See ``predict.mode``.
        drift_bound: An alarm when the latest studies lie farther from the training cases: 1 is a factor of two, or one
            standard deviation.
        drift_window: So many of the latest studies are looked at together; fewer than half of it give no alarm.
        retrain_after: Labels that come through the inbox (SEG, RTSTRUCT) are added to the data, and the training starts
            when so many series have a new one, or when one has and there is a drift alarm; null takes none.
        pacs: Null works on the folders alone.
    """

    folder: str = "inbox"
    outbox: str = "outbox"
    model: str | None = None
    settle_s: Annotated[Real, Field(ge=0.0)] = 60.0
    max_attempts: Positive = 5
    retry_s: Annotated[Real, Field(ge=0.0)] = 60.0
    every_s: Positive = 300
    identity: Literal["source", "pseudonymous"] = "source"
    mode: Literal["exact", "fast"] = "fast"
    drift_bound: Annotated[Real, Field(gt=0.0)] = 1.0
    drift_window: Positive = 20
    retrain_after: Positive | None = None
    pacs: PacsConfig | None = None

    @field_validator("pacs")
    @classmethod
    def _can_file(cls, pacs: PacsConfig | None, info: ValidationInfo) -> PacsConfig | None:
        if pacs is not None and pacs.store and info.data.get("identity") == "pseudonymous":
            raise ValueError("store needs inbox.identity: source, else the PACS files the SEG under another patient")
        return pacs


class ServeConfig(Section):
    """When ``monai-tl serve`` starts the training; ``inbox.every_s`` says it of the inbox. No result depends on it.

    Attributes:
        every_s: Time between starts, s.
        cron: Cron schedule of five fields, UTC, e.g. ``0 2 * * *``; takes the place of ``every_s``.
    """

    every_s: Positive = 86_400
    cron: Annotated[str, Field(pattern=r"^[\w*/,#?-]+( [\w*/,#?-]+){4}$")] | None = None

    def overridden(self, every_s: int | None, cron: str | None) -> ServeConfig:
        """The schedule in force: what the command line gives wins, and there too the cron schedule.

        Raises:
            ConfigError: What was given is no schedule.
        """
        if every_s is None and cron is None:
            return self
        try:
            return ServeConfig.model_validate({"every_s": self.every_s if every_s is None else every_s, "cron": cron})
        except ValidationError as error:
            options = {"every_s": "--interval", "cron": "--cron"}
            faults = [f"{options[str(one['loc'][0])]}: {one['msg']}" for one in error.errors()]
            raise ConfigError(faults, "arguments") from None

    @property
    def words(self) -> str:
        """E.g. ``every 86400 s`` or ``cron 0 2 * * *``."""
        return f"every {self.every_s} s" if self.cron is None else f"cron {self.cron}"
