"""``monai-tl audit-privacy``: can somebody who has a tuned network tell whose images it was trained on?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_tl.commands.audit_references import Losses, references_of_folds, source_of, train_references
from monai_tl.config import Params
from monai_tl.dataset.manifest import read_manifest, read_unprepared
from monai_tl.dataset.splits import patients_of
from monai_tl.errors import ConfigError, DataError
from monai_tl.files import write_json
from monai_tl.integrity import check_if_sealed
from monai_tl.metrics.cohort import BootstrapRule
from monai_tl.metrics.membership import (
    AttackStrength,
    by_patient,
    judge_attack,
    likelihood_ratio,
    scaled_confidence,
)
from monai_tl.metrics.summary import Interval
from monai_tl.privacy_records import AUDIT_FILE, Attack, Estimate, ModelAudit, PrivacyAudit, read_guarantee
from monai_tl.progress import Progress
from monai_tl.records import Fold, Plan, Split, model_name
from monai_tl.sources.card import read_source
from monai_tl.sources.privacy_text import describe_attacks

FALSE_POSITIVE_RATE = 0.01
_MIN_PATIENTS = 2
_NO_REFERENCE = (
    "No calibrated attack: no other network of this run held the members out. Train more folds "
    "(finetune.folds), or give --references; the attack by loss alone finds less than an attacker with references."
)


@dataclass(frozen=True)
class _Run:
    """What all audited networks have in common."""

    workspace: Path
    params: Params
    plan: Plan
    split: Split
    patients: Mapping[str, str]
    unprepared: frozenset[str]
    losses: Losses
    n_references: int
    bootstrap: BootstrapRule

    def model(self, arm: str, fold: int, seed: int) -> Path:
        return self.workspace / "artifacts/models" / model_name(arm, fold, seed)

    def usable(self, case_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(case_id for case_id in case_ids if case_id not in self.unprepared)


def run(
    workspace: Path, params: Params, arms: Sequence[str] | None = None, n_references: int = 0, out: Path | None = None
) -> PrivacyAudit:
    """Attack the networks of a finished run, each fold of the first seed.

    Members are a network's training cases, the others the test cases; validation cases too where they did not choose
    the weights. Nothing is trained unless references are asked for.

    Args:
        workspace: Holds the products of finetune and of all stages before.
        params: Its params.yaml.
        arms: To attack; None takes all of the run.
        n_references: Networks to train on random halves of members and others, to hold losses against; even. 0 takes
            the run's other folds.
        out: JSON file to write; None takes ``reports/privacy.json``.

    Raises:
        ConfigError: An arm that was not trained, or an odd number of references.
        DataError: There are too few patients on one side, or a file is missing or was changed since its stage.
    """
    trained = params.finetune.arms
    if odd := [arm for arm in arms or () if arm not in trained]:
        raise ConfigError(f"--arm: {odd[0]!r} is none of finetune.arms ({', '.join(trained)})", "arguments")
    if n_references < 0 or n_references % 2:
        raise ConfigError(f"--references: is {n_references}, and must be even: they train in pairs", "arguments")
    artifacts, settings = workspace / "artifacts", params.evaluate
    finetune = params.finetune
    models = [model_name(*one) for one in itertools.product(trained, finetune.folds, finetune.seeds)]
    for name in ("cases", "split", "plan", "prepared", *(f"models/{model}" for model in models)):
        check_if_sealed(artifacts / name)
    manifest = read_manifest(artifacts / "cases")
    shared = _Run(
        workspace=workspace,
        params=params,
        plan=Plan.read(artifacts / "plan/plan.json"),
        split=Split.read(artifacts / "split/split.json"),
        patients=patients_of(manifest.cases),
        unprepared=frozenset(read_unprepared(artifacts / "prepared")),
        losses=Losses(artifacts / "prepared", params, Progress("audit-privacy")),
        n_references=n_references,
        bootstrap=BootstrapRule(settings.n_bootstrap, settings.confidence, settings.seed),
    )
    audits = [_audit(shared, arm, fold) for arm in arms or trained for fold in sorted(params.finetune.folds)]
    audit = PrivacyAudit(
        false_positive_rate=FALSE_POSITIVE_RATE,
        confidence=settings.confidence,
        models=tuple(sorted(audits, key=lambda one: one.model)),
    )
    write_json(out or workspace / AUDIT_FILE, audit.model_dump(mode="json"))
    return audit


def describe(audit: PrivacyAudit, written: Path) -> str:
    """The audit for a terminal: a heading and lines for each network."""
    lines = []
    for one in audit.models:
        kind = "no differential privacy" if one.guarantee is None else f"ε = {one.guarantee.epsilon:.2f}"
        lines += [f"{one.model} ({kind})", *(f"  {line}" for line in describe_attacks(one))]
    lines.append(f"Written: {written}. For the model card set export.privacy_audit to it and run again.")
    return "\n".join(lines)


def _audit(run: _Run, arm: str, number: int) -> ModelAudit:
    seed = run.params.finetune.seed
    folder = run.model(arm, number, seed)
    guarantee = read_guarantee(folder)
    fold = run.split.folds[number]
    members, test = run.usable(fold.train), run.usable(run.split.test)
    # where validation chose the weights, its cases are neither members nor strangers
    val = run.usable(fold.val) if guarantee is not None else ()
    others = (*test, *val)
    _check_numbers(folder.name, run.patients, members, others)
    loss = run.losses.of(folder, (*members, *others))
    confidence = {case_id: scaled_confidence(value) for case_id, value in loss.items()}
    attacks = [_attack("loss", run, confidence, members, others)]
    inside, outside = _references(run, arm, number, fold, members, others)
    ratio = likelihood_ratio(confidence, inside, outside)
    notes = []
    has_members, has_others = ({run.patients[one] for one in side if one in ratio} for side in (members, others))
    if min(len(has_members), len(has_others)) >= _MIN_PATIENTS:
        attack = _attack("likelihood_ratio", run, ratio, members, others)
        n_held = sum(len(inside.get(one, ())) + len(outside[one]) for one in ratio) / len(ratio)
        has_inside = any(inside.values())
        attacks.append(attack.model_copy(update={"n_references": n_held, "has_members_in_references": has_inside}))
    else:
        notes.append(_NO_REFERENCE)
    if attacks[0].finest_rate is not None and attacks[0].finest_rate > FALSE_POSITIVE_RATE:
        notes.append(_few_others(attacks[0]))
    if run.params.split.test_ids_file is not None:
        notes.append(
            "The test cases were named by hand: where they come from other scanners or sites, the attack tells these "
            "apart and not who was trained on."
        )
    return ModelAudit(
        model=folder.name,
        weights_sha256=read_source(folder).card.weights.sha256,
        others="test and validation" if test and val else "test" if test else "validation",
        guarantee=guarantee,
        attacks=tuple(attacks),
        notes=tuple(notes),
    )


def _check_numbers(name: str, patients: Mapping[str, str], members: Sequence[str], others: Sequence[str]) -> None:
    counts = [len({patients[case_id] for case_id in side}) for side in (members, others)]
    if min(counts) < _MIN_PATIENTS:
        raise DataError(
            f"{name}: was trained on {counts[0]} patients and there are {counts[1]} to hold against them, of which the "
            "attack needs two each; set split.test_fraction or split.test_ids_file, or add cases"
        )


def _references(
    run: _Run, arm: str, number: int, fold: Fold, members: Sequence[str], others: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Scaled confidences of each case by networks that were trained on it, and by networks that were not."""
    inside: dict[str, list[float]] = {}
    outside: dict[str, list[float]] = {}
    if run.n_references:
        config = run.params.finetune.model_copy(update={"seeds": (run.params.finetune.seed,)})
        patients = {case_id: run.patients[case_id] for case_id in (*members, *others)}
        source = source_of(run.workspace, run.plan, arm)
        trained = train_references(
            run.workspace, run.plan, config, arm, source, patients, run.n_references, run.losses
        )  # fmt: skip
        for own, losses in trained:
            for case_id, loss in losses.items():
                side = inside if case_id in own else outside
                side.setdefault(case_id, []).append(scaled_confidence(loss))
        return inside, outside
    finetune = run.params.finetune
    folds = {one: run.split.folds[one] for one in finetune.folds}
    models = {one: [run.model(a, one, s) for a in finetune.arms for s in finetune.seeds] for one in folds}
    return inside, references_of_folds(number, folds, models, (*members, *others), run.losses)


def _attack(name: str, run: _Run, scores: Mapping[str, float], members: Sequence[str], others: Sequence[str]) -> Attack:
    sides = [
        list(by_patient({one: scores[one] for one in side if one in scores}, run.patients).values())
        for side in (members, others)
    ]
    found = judge_attack(sides[0], sides[1], run.bootstrap, FALSE_POSITIVE_RATE)
    return _record(name, found)


def _record(name: str, found: AttackStrength) -> Attack:
    return Attack.model_validate(
        {
            "name": name,
            "auc": _estimate(found.auc, found.auc_interval),
            "true_positive_rate": _estimate(found.true_positive_rate, found.rate_interval),
            "n_members": found.n_members,
            "n_others": found.n_others,
            "finest_rate": _defined(found.finest_rate),
            "rate_bound": _defined(found.rate_bound),
        }
    )


def _estimate(value: float, interval: Interval) -> Estimate:
    return Estimate(value=_defined(value), low=_defined(interval.low), high=_defined(interval.high))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _few_others(attack: Attack) -> str:
    return (
        f"A false positive rate of {FALSE_POSITIVE_RATE:.0%} cannot be seen with {attack.n_others} patients who were "
        f"not trained on: one of them is {attack.finest_rate:.1%}. The true positive rate is that without any false "
        f"alarm among them; the true rate of false alarms may be up to {attack.rate_bound:.1%}."
    )
