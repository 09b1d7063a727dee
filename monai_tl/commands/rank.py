"""``monai-tl rank``: which of several sources to start from, by scores before training and a short probe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from monai_tl.commands.rank_source import STRATEGY, Findings, Task, look_at_source
from monai_tl.config import Params, SplitConfig
from monai_tl.dataset.fingerprint import fingerprint
from monai_tl.dataset.manifest import DATASET_FILE, Manifest, read_manifest
from monai_tl.dataset.splits import check_split, patients_of, split_patients
from monai_tl.errors import ConfigError, DataError, SourceError, describe_fault
from monai_tl.files import code_digest, sha256_files, sha256_of, write_json, write_text
from monai_tl.integrity import check_if_sealed
from monai_tl.records import Fingerprint, Fold, Split
from monai_tl.report.ranking import ranking_page, ranking_table
from monai_tl.stages import STATE_FOLDER
from monai_tl.transfer.rank import (
    Conditions,
    RankedSource,
    Ranking,
    RefusedSource,
    compare,
    describe_ranking,
    mean_dice,
    measure_agreement,
    order_sources,
)

OUT = Path("reports/rank/rank.json")
N_CASES, STEPS, N_SEEDS = 16, 60, 3


def run(
    sources: Sequence[Path],
    workspace: Path,
    params: Params,
    n_cases: int = N_CASES,
    steps: int = STEPS,
    n_seeds: int = N_SEEDS,
    out: Path | None = None,
    console: Console | None = None,
) -> Ranking:
    """Rank sources on training cases of a workspace; the test cases are never touched.

    One source that cannot be used is listed with its reason, and the others go on. Results are kept in
    ``.monai_tl/rank`` by what decides them, so a second call computes only what is new.

    Args:
        sources: Anything that can be a source.
        workspace: With ``artifacts/cases`` and ``artifacts/split``.
        params: Its params.yaml; section finetune (rates, batch size, seed …) is the probe's too.
        n_cases: Training cases to look at, at most; chosen by the seed, half of the patients to train the probe on.
        steps: Of the probe; 0 for none, else at least 2.
        n_seeds: Repetitions of the probe; with one, nothing can be told from chance.
        out: JSON file to write, with the same in Markdown beside it; None takes OUT below the workspace.
        console: Where the table goes; None prints none.

    Raises:
        ConfigError: No source, or numbers that make no sense.
        DataError: Cases or split are missing, too few, or were changed since their stage.
        SourceError: None of the sources could be ranked.
    """
    _check(sources, n_cases, steps, n_seeds)
    task = _make_task(workspace, params, n_cases, steps, n_seeds)
    found: dict[str, Findings] = {}
    refused = []
    for name, path in _name_sources(sources).items():
        try:
            found[name] = look_at_source(path, name, task)
        except Exception as error:
            _, reason = describe_fault(error)
            refused.append(RefusedSource(name=name, reason=_without_places(reason, name, path, workspace)))
    if not found:
        listed = "\n".join(f"  {one.name}: {one.reason}" for one in refused)
        raise SourceError(f"none of the sources could be ranked; mend or replace them\n{listed}")
    ranking = _rank(found, tuple(refused), task)
    if own := _trained_here(sources, found, workspace):
        ranking = ranking.model_copy(update={"findings": (*ranking.findings, own)})
    path = out or workspace / OUT
    write_json(path, ranking.model_dump(mode="json"))
    write_text(path.with_suffix(".md"), ranking_page(ranking))
    if console is not None:
        console.print(ranking_table(ranking))
        for line in (*ranking.findings, *(f"Not ranked: {one.name}: {one.reason}" for one in refused)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"Written: {path}", highlight=False, markup=False, soft_wrap=True)
    return ranking


def _trained_here(sources: Sequence[Path], names: Iterable[str], workspace: Path) -> str | None:
    """A warning where the cases that judge may have trained the source."""
    models = (workspace / "artifacts").resolve()
    own = [name for name, path in _name_sources(sources).items() if name in names and path.is_relative_to(models)]
    if not own:
        return None
    return (
        f"Trained in this workspace, and so perhaps on the very cases that judge here: {', '.join(own)}. Scores and "
        "probe flatter such a source."
    )


def _check(sources: Sequence[Path], n_cases: int, steps: int, n_seeds: int) -> None:
    faults = [] if sources else ["SOURCES: name at least one source"]
    faults += [] if n_cases >= 2 else [f"--n-cases: is {n_cases}, and one to train on and one to judge on are needed"]
    faults += [] if steps == 0 or steps >= 2 else [f"--steps: is {steps}, but the head takes one step before the body"]
    faults += [] if n_seeds >= 1 else [f"--seeds: is {n_seeds}, and one is the least"]
    if faults:
        raise ConfigError(faults, "arguments")


def _name_sources(sources: Sequence[Path]) -> dict[str, Path]:
    """Each source by its folder's name; a number tells those with the same name apart."""
    named: dict[str, Path] = {}
    for path in sources:
        name, number = path.resolve().name, 2
        while name in named:
            name, number = f"{path.resolve().name}-{number}", number + 1
        named[name] = path.resolve()
    return named


def _without_places(reason: str, name: str, path: Path, workspace: Path) -> str:
    """The reason without absolute paths: they would go into the report, and folders may be named after people."""
    for place, word in ((path, name), (workspace.resolve(), "the workspace"), (Path.home(), "~")):
        reason = reason.replace(str(place), word)
    return reason


def _make_task(workspace: Path, params: Params, n_cases: int, steps: int, n_seeds: int) -> Task:
    for folder, stage in (("cases", "ingest"), ("split", "split")):
        file = workspace / "artifacts" / folder / (DATASET_FILE if folder == "cases" else "split.json")
        if not file.is_file():
            raise DataError(
                f"artifacts/{folder} is missing in the workspace; run 'monai-tl stage {stage}' or 'monai-tl run' first"
            )
        check_if_sealed(file.parent)
    manifest = read_manifest(workspace / "artifacts/cases")
    split = Split.read(workspace / "artifacts/split/split.json")
    check_split(split, manifest.cases)
    state = workspace / STATE_FOLDER / "rank"
    pool = tuple(sorted({case_id for fold in split.folds for case_id in (*fold.train, *fold.val)}))
    fold = _choose_cases(manifest, split, pool, n_cases, params.finetune.seed)
    chosen = sorted([*fold.train, *fold.val])
    files = [place(one) for one in chosen for place in (manifest.image_path, manifest.label_path)]
    found = _fingerprint(manifest, pool, state)
    seeds = tuple(range(params.finetune.seed, params.finetune.seed + n_seeds))
    return Task(params, manifest, found, fold, sha256_of(*chosen, sha256_files(files)), state, steps, seeds)


def _choose_cases(manifest: Manifest, split: Split, pool: Sequence[str], n_cases: int, seed: int) -> Fold:
    """A subset of the training cases by seed, its patients halved; a test case is not among the candidates."""
    # unlabelled cases come along because one of them can show that two patients are the same
    candidates = [case for case in manifest.cases if case.case_id in pool or case.case_id in split.unlabelled]
    config = SplitConfig(seed=seed, n_folds=2, test_fraction=0.0, n_train_cases=min(n_cases, len(pool)))
    fold = split_patients(candidates, config).folds[0]
    if {*fold.train, *fold.val} & set(split.test):
        raise DataError("the split is not of one piece: a test case is among the training cases; run split again")
    if not any(sum(case.class_voxels.values()) for case in manifest.select(fold.val)):
        raise DataError("none of the cases that would judge the probe holds a class; look at more of them (--n-cases)")
    return fold


def _fingerprint(manifest: Manifest, pool: Sequence[str], state: Path) -> Fingerprint:
    """Of all training cases, as the plan stage sees them; kept by the files' content."""
    files = [place(one) for one in pool for place in (manifest.image_path, manifest.label_path)]
    dataset = manifest.dataset.model_dump_json()
    path = state / f"{sha256_of('fingerprint', code_digest('dataset'), dataset, *pool, sha256_files(files))}.json"
    if path.is_file():
        return Fingerprint.read(path)
    found = fingerprint(manifest.select(tuple(pool)), manifest)
    found.write(path)
    return found


def _rank(found: dict[str, Findings], refused: tuple[RefusedSource, ...], task: Task) -> Ranking:
    settings, patients = task.params.evaluate, patients_of(task.manifest.cases)
    bootstrap = (patients, settings.n_bootstrap, settings.confidence, settings.seed)
    rows = []
    for name, one in found.items():
        row = RankedSource(
            name=name,
            weights_sha256=one.source.card.weights.sha256,
            network=one.plan.network.name,
            share_body=one.share_body,
            contract={
                line.item: f"{line.status}, accepted" if line.accepted else line.status
                for line in one.plan.adaptations
                if line.status != "equal"
            },
            scores=one.scores,
        )
        if one.probe:
            judged = {
                "probe": mean_dice(one.probe, *bootstrap),
                "scratch": mean_dice(one.scratch, *bootstrap),
                "gain": compare(one.probe, one.scratch, *bootstrap),
            }
            row = row.model_copy(update=judged)
        rows.append(row)
    ordered = order_sources(rows)
    probes = [found[row.name].probe for row in ordered if found[row.name].probe]
    neighbours = [compare(above, below, *bootstrap) for above, below in pairwise(probes)]
    agreements = measure_agreement(ordered)
    conditions = Conditions(
        n_cases=len(task.fold.train) + len(task.fold.val),
        n_train_cases=len(task.fold.train),
        n_val_cases=len(task.fold.val),
        n_val_patients=len({patients[case_id] for case_id in task.fold.val}),
        strategy=STRATEGY,
        steps=task.steps,
        seeds=task.seeds,
        confidence=settings.confidence,
    )
    return Ranking(
        conditions=conditions,
        sources=ordered,
        refused=refused,
        agreements=agreements,
        findings=describe_ranking(ordered, agreements, neighbours),
    )
