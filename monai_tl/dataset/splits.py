"""Patients into a test set and folds, before anything is fitted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_tl.config import SplitConfig
from monai_tl.errors import DataError, LeakageError
from monai_tl.files import read_json, sha256_of
from monai_tl.records import CaseRecord, Fold, Split


@dataclass(frozen=True)
class _Patient:
    """One patient's labelled cases.

    Attributes:
        stratum: Sites and classes present, as text that sorts.
        draw: Pseudo-random rank from the seed and the patient; independent of all other patients.
    """

    stratum: str
    draw: str
    case_ids: tuple[str, ...]


def split_patients(cases: Sequence[CaseRecord], config: SplitConfig, test_ids: Sequence[str] | None = None) -> Split:
    """Divide the labelled cases by patient, stratified by site and scanner and by the classes present.

    Patients are sorted by stratum and drawn systematically, so each stratum gives its share to within one patient. Each
    patient's rank depends on the seed and its key alone: neither the order of the input nor the platform matters.
    Patients that share an image count as one, whatever their keys say; ``notes`` lists the cases.

    Args:
        cases: All cases.
        config: Seed, folds, test fraction (of the patients), ``n_train_cases``: keep so many cases outside the test
            set; a smaller number keeps a subset of those of a larger one.
        test_ids: Case ids of the test set; then the fraction is not used.

    Returns:
        Sorted ids. Each labelled case is in the test set or in ``val`` of exactly one fold (or dropped by
        ``n_train_cases``).

    Raises:
        DataError: Too few patients, or test ids that are unknown, unlabelled or doubled.
        LeakageError: The test ids hold only part of a patient.
    """
    labelled = sorted((case for case in cases if case.has_label), key=lambda case: case.case_id)
    if test_ids is not None:
        _check_test_ids(cases, test_ids)
    if not labelled:
        raise DataError(
            f"none of the {len(cases)} cases has a usable label; artifacts/cases/rejected.json says which labels were "
            "refused and why (the names or values in ingest.classes may not be those of the labels)"
        )
    patients = _group_patients(labelled, patients_of(cases), config.seed)
    test = _choose_test(patients, config, test_ids)
    tested = {case_id for patient in test for case_id in patient.case_ids}
    pool = [patient for patient in patients if tested.isdisjoint(patient.case_ids)]
    if config.n_train_cases is not None:
        pool = _keep_cases(pool, config.n_train_cases)
    if len(pool) < config.n_folds:
        raise DataError(
            f"{config.n_folds} folds need as many patients, but of the {len(patients)} with a label {len(test)} are "
            f"for testing and {len(pool)} are left; lower split.n_folds or split.test_fraction, raise "
            "split.n_train_cases, or add cases"
        )
    split = Split(
        test=_ids(test),
        folds=tuple(_fold(pool, index, config.n_folds) for index in range(config.n_folds)),
        unlabelled=tuple(sorted(case.case_id for case in cases if not case.has_label)),
        same_patient=tuple(sorted(patient.case_ids for patient in patients if len(patient.case_ids) > 1)),
        notes=_note_copies(cases),
    )
    check_split(split, cases)
    return split


def check_split(split: Split, cases: Sequence[CaseRecord]) -> None:
    """Make sure that no patient is on two sides.

    Raises:
        LeakageError: One is, or two cases with the same image are; the message names the case ids.
        DataError: The split names a case that is not there.
    """
    patient_of = patients_of(cases)
    sides: list[tuple[str, tuple[str, ...], str, tuple[str, ...]]] = []
    for index, fold in enumerate(split.folds):
        sides.append((f"train {index}", fold.train, f"val {index}", fold.val))
        sides.append(("test", split.test, f"fold {index}", (*fold.train, *fold.val)))
    for left_name, left, right_name, right in sides:
        missing = sorted((set(left) | set(right)) - set(patient_of))
        if missing:
            raise DataError(f"the split names cases that are not there: {', '.join(missing)}; run split again")
        shared = {patient_of[case_id] for case_id in left} & {patient_of[case_id] for case_id in right}
        if shared:
            found = sorted({case_id for case_id in (*left, *right) if patient_of[case_id] in shared})
            raise LeakageError(
                f"a patient is both in {left_name} and in {right_name}: cases {', '.join(found)}; "
                "put all cases of a patient, and all copies of an image, on one side"
            )


def read_test_ids(path: Path) -> tuple[str, ...]:
    """Read a JSON list of case ids.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise DataError(
            f"split.test_ids_file: {path.name} is not there; the path is relative to the workspace"
        ) from None
    except ValueError:
        raise DataError(f"split.test_ids_file: {path.name} is no JSON; write a list of case ids") from None
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        raise DataError(f"split.test_ids_file: {path.name} must hold a list of case ids and nothing else")
    return tuple(content)


def _check_test_ids(cases: Sequence[CaseRecord], test_ids: Sequence[str]) -> None:
    known = {case.case_id: case for case in cases}
    # an id that is not a known pseudonym may be a patient's name, so its text is not repeated
    unknown = [index for index, case_id in enumerate(test_ids) if case_id not in known]
    if unknown:
        places = ", ".join(str(index + 1) for index in unknown[:10])
        raise DataError(
            f"split.test_ids_file: {len(unknown)} of {len(test_ids)} ids are no cases (entries {places}); "
            "use the ids in artifacts/cases/dataset.json"
        )
    doubled = sorted({case_id for case_id, count in Counter(test_ids).items() if count > 1})
    if doubled:
        raise DataError(f"split.test_ids_file: named twice: {', '.join(doubled)}")
    bare = sorted(case_id for case_id in test_ids if not known[case_id].has_label)
    if bare:
        raise DataError(f"split.test_ids_file: without a label, so of no use for testing: {', '.join(bare)}")


def patients_of(cases: Sequence[CaseRecord]) -> dict[str, str]:
    """Case id → patient; patients that share an image are one, named by the first of their keys.

    Give it all cases: one without a label can tie two patients together too.
    """
    group_of = {case.patient_key: case.patient_key for case in cases}
    for members in _by_image(cases).values():
        merged = {group_of[case.patient_key] for case in members}
        if len(merged) > 1:
            name = min(merged)
            group_of = {key: name if group in merged else group for key, group in group_of.items()}
    return {case.case_id: group_of[case.patient_key] for case in cases}


def _by_image(cases: Sequence[CaseRecord]) -> dict[str, list[CaseRecord]]:
    found: dict[str, list[CaseRecord]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        found[case.provenance.image_sha256].append(case)
    return found


def _note_copies(cases: Sequence[CaseRecord]) -> tuple[str, ...]:
    copies = [
        ", ".join(case.case_id for case in members)
        for members in _by_image(cases).values()
        if len({case.patient_key for case in members}) > 1
    ]
    return tuple(
        f"cases {listed} hold the same image under different patients and count as one patient; leave one in the input"
        for listed in sorted(copies)
    )


def _group_patients(labelled: Sequence[CaseRecord], patient_of: Mapping[str, str], seed: int) -> list[_Patient]:
    """Patients sorted by stratum, then by their draw."""
    groups: dict[str, list[CaseRecord]] = defaultdict(list)
    for case in labelled:
        groups[patient_of[case.case_id]].append(case)
    patients = []
    for key, members in groups.items():
        origins = sorted({_origin(case) for case in members})
        classes = sorted({name for case in members for name, count in case.class_voxels.items() if count > 0})
        patients.append(
            _Patient(
                stratum="/".join(origins) + "|" + "/".join(classes),
                draw=sha256_of("split", str(seed), key),
                case_ids=tuple(case.case_id for case in members),
            )
        )
    return sorted(patients, key=lambda patient: (patient.stratum, patient.draw))


def _origin(case: CaseRecord) -> str:
    """Site and scanner: images of two scanners of a site differ as those of two sites do."""
    scanner = case.provenance.scanner
    return ",".join([case.site, scanner.get("Manufacturer", ""), scanner.get("ManufacturerModelName", "")])


def _choose_test(patients: list[_Patient], config: SplitConfig, test_ids: Sequence[str] | None) -> list[_Patient]:
    if test_ids is None:
        n_test = max(1, round(config.test_fraction * len(patients))) if config.test_fraction > 0 else 0
        n_all = max(1, len(patients))
        return [p for i, p in enumerate(patients) if (i + 1) * n_test // n_all > i * n_test // n_all]
    wanted = set(test_ids)
    chosen = [patient for patient in patients if wanted & set(patient.case_ids)]
    left_out = sorted({case_id for patient in chosen for case_id in patient.case_ids} - wanted)
    if left_out:
        raise LeakageError(
            "split.test_ids_file names only part of a patient's cases (or one of two copies); "
            f"these must go along: {', '.join(left_out)}"
        )
    return chosen


def _keep_cases(pool: list[_Patient], n_cases: int) -> list[_Patient]:
    """The first ``n_cases`` of one fixed order, so that smaller sets lie in larger ones.

    Each patient's first case comes before any second one, and strata are interleaved by their share.
    """
    strata: dict[str, list[_Patient]] = defaultdict(list)
    for patient in pool:
        strata[patient.stratum].append(patient)
    order: list[tuple[int, float, str, str]] = []
    for members in strata.values():
        for rank, patient in enumerate(members):
            place = (rank + 0.5) / len(members)
            order += [(turn, place, patient.draw, case_id) for turn, case_id in enumerate(patient.case_ids)]
    if n_cases > len(order):
        raise DataError(
            f"split.n_train_cases is {n_cases}, but {len(order)} labelled cases are left outside the test set; lower it"
        )
    kept = {case_id for *_, case_id in sorted(order)[:n_cases]}
    trimmed = (
        _Patient(patient.stratum, patient.draw, tuple(case_id for case_id in patient.case_ids if case_id in kept))
        for patient in pool
    )
    return [patient for patient in trimmed if patient.case_ids]


def _fold(pool: list[_Patient], index: int, n_folds: int) -> Fold:
    return Fold(
        train=_ids(patient for place, patient in enumerate(pool) if place % n_folds != index),
        val=_ids(patient for place, patient in enumerate(pool) if place % n_folds == index),
    )


def _ids(patients: Iterable[_Patient]) -> tuple[str, ...]:
    return tuple(sorted(case_id for patient in patients for case_id in patient.case_ids))
