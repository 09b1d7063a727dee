"""How often the test set was looked at: every set of models that was scored on it, counted once.

A test set judges honestly once. Each further model that is tried on it, and kept or dropped by what was seen, fits the
choice to these cases a little more; so the count stands beside the numbers. It is kept for each image by itself: one
more case, or a label drawn anew, makes no fresh test set of those that were seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from monai_tl.config import PredictConfig
from monai_tl.errors import DataError
from monai_tl.files import held, sha256_of, sweep_abandoned
from monai_tl.records import CaseRecord, Record

LOOKS_FILE = "test_looks.json"
"""In the workspace, for git to track: entries are added and never changed."""


class Look(Record):
    """One set of models scored on a test set.

    Attributes:
        number: From 1: how many sets of models, this one among them, had met the case that was looked at most. The same
            models again are the same look: nothing new is learnt from them.
        test_set: Hash over its cases; names an entry of ``Looks.test_sets``.
        models: Name → sha256 of the weights.
        settings: Those of predict that change label maps.
        models_sha256: Over the weights' hashes, whatever the names are, and the settings.
        by: ``evaluate``, or ``curve`` for a point of the curve.
    """

    number: int
    test_set: str
    models: dict[str, str]
    settings: dict[str, Any] = Field(default_factory=dict)
    models_sha256: str
    by: Literal["evaluate", "curve"]


class Looks(Record):
    """``test_looks.json``.

    Attributes:
        test_sets: Hash of a test set → a hash of each of its images.
        looks: In the order of time.
    """

    schema_version: Literal[1] = 1
    test_sets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    looks: tuple[Look, ...] = ()

    @model_validator(mode="after")
    def _has_each_test_set(self) -> Self:
        if any(look.test_set not in self.test_sets for look in self.looks):
            raise ValueError("a look is at no test set")
        return self

    def find(self, look: Look) -> Look | None:
        """The entry of the same models on the same cases."""
        same = (one for one in self.looks if one.test_set == look.test_set and one.models_sha256 == look.models_sha256)
        return next(same, None)

    def with_look(self, look: Look, images: Sequence[str]) -> Looks:
        """With one more entry, which is numbered here; it must not be in it."""
        seen: dict[str, set[str]] = {image: {look.models_sha256} for image in images}
        for one in self.looks:
            for image in self.test_sets[one.test_set]:
                if image in seen:
                    seen[image].add(one.models_sha256)
        numbered = look.model_copy(update={"number": max(map(len, seen.values()), default=1)})
        return Looks(test_sets={**self.test_sets, look.test_set: tuple(images)}, looks=(*self.looks, numbered))


def read_looks(workspace: Path) -> Looks:
    """All that were recorded; none without the file.

    Raises:
        DataError: The file is damaged.
    """
    path = workspace / LOOKS_FILE
    if not path.is_file():
        return Looks()
    try:
        return Looks.read(path)
    except DataError:
        raise DataError(
            f"{path} cannot be read, and without it nobody knows how often the test set was looked at; bring it back "
            f"from git (git checkout -- {LOOKS_FILE}), or move it away to count anew"
        ) from None


def record_look(
    workspace: Path,
    cases: Sequence[CaseRecord],
    models: Mapping[str, str],
    predict: PredictConfig,
    by: Literal["evaluate", "curve"],
) -> Look:
    """Record that models were scored on the test cases, before their numbers are shown to anybody.

    Args:
        workspace: Gets ``test_looks.json``.
        cases: The test set.
        models: Name → sha256 of the weights.
        predict: How they predicted: other windows or mirrored passes are another thing to choose by what is seen.
        by: Who looks.

    Returns:
        The look: a new one, or that of the first time the same models met the same cases.

    Raises:
        DataError: The file is damaged: to begin anew would forget what was seen.
    """
    images, settings = _hashes_of_images(cases), label_settings(predict)
    digest = sha256_of(*sorted(models.values()), *(f"{name}={value}" for name, value in sorted(settings.items())))
    new = Look(
        number=1, test_set=sha256_of(*images), models=dict(models), settings=settings, models_sha256=digest, by=by
    )
    return _add(workspace, [(new, images)])[0]


def bring_looks(origin: Path, workspace: Path) -> None:
    """Add to a workspace the looks of another copy of it; the other one stays as it is.

    Raises:
        DataError: A file is damaged.
    """
    found = read_looks(origin)
    _add(workspace, [(look, found.test_sets[look.test_set]) for look in found.looks])


def label_settings(predict: PredictConfig) -> dict[str, Any]:
    """The settings of predict that change label maps by more than rounding, and only those that its mode heeds."""
    of_mode = {"memory_gib": predict.memory_gib} if predict.mode == "fast" else {"overlap": predict.overlap}
    return {"mode": predict.mode, "flips": sorted(set(predict.flips)), "blending": predict.blending, **of_mode}


def _add(workspace: Path, entries: Iterable[tuple[Look, Sequence[str]]]) -> list[Look]:
    """The entries as the file has them, which gets those it lacks."""
    kept = []
    with held(workspace):
        before = looks = read_looks(workspace)
        for look, images in entries:
            if looks.find(look) is None:
                looks = looks.with_look(look, images)
            kept.append(looks.find(look) or look)
        # whoever was killed while writing has left a part of the file, also where nothing is new now
        sweep_abandoned(workspace, LOOKS_FILE)
        if looks is not before:
            looks.write(workspace / LOOKS_FILE)
    return kept


def _hashes_of_images(cases: Sequence[CaseRecord]) -> tuple[str, ...]:
    """Of the images alone, in a fixed order: under another name, or with its label redrawn, an image was seen too."""
    return tuple(sorted({sha256_of("test image", case.provenance.image_sha256) for case in cases}))
