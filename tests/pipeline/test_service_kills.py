"""Everything a service is made of, killed at random: flow, DVC, stage, worker, server and PACS.

A round is a service of its own over a small cohort: a training by eight real stages, and studies that come to the PACS
one after another. Nobody helps it but a supervisor that starts again what has ended.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from inbox_world import series_uid, sources_of, write_model
from orthanc import AUTH, orthanc_in
from service_kills import (
    KINDS,
    Round,
    Undisturbed,
    ledger_rows,
    no_lock_blocks,
    plan,
    products,
    snapshot,
    stored_segs,
    study_of,
)
from service_world import service_in, write_schedules
from workspaces import Place, free_port, make_real, make_site, until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

N_ROUNDS, N_KILLS = 6, 9
EVERY_S = 10
_OPEN = ("PENDING", "RUNNING", "CANCELLING")
ROUNDS = [plan(seed, N_KILLS) for seed in range(N_ROUNDS)]


@dataclass
class Base:
    """A workspace before its first run, and what it comes to without faults."""

    place: Place
    pacs_port: int
    studies: list[list[Path]]
    undisturbed: Undisturbed


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    home = tmp_path_factory.mktemp("service")
    place = make_real(home / "workspace", make_site(home / "site"))
    place.extra |= {"MONAI_TL_EXECUTOR": "sequential", "OMP_NUM_THREADS": "1", "MONAI_TL_PACS_AUTH": AUTH}
    port = free_port()
    write_model(place.folder / "model")
    params = yaml.safe_load((place.folder / "params.yaml").read_text())
    pacs = {"url": f"http://127.0.0.1:{port}/dicom-web", "days": None, "timeout_s": 20}
    # as many attempts as there are kills: what is at test is that nothing is lost, not when a study is given up
    params["inbox"] = {"model": "model", "settle_s": 2, "retry_s": 1, "max_attempts": N_KILLS + 1, "pacs": pacs}
    (place.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_schedules(place.folder, EVERY_S)
    studies = [study_of(number, home / "studies") for number in range(N_KILLS)]
    plain = Place(shutil.copytree(place.folder, home / "undisturbed", symlinks=True), place.site, place.extra)
    plain.run("monai_tl", "run", "--plain")
    with orthanc_in(home / "pacs", port) as running:
        for paths in studies:
            running.put(paths)
        # the first look at a study in the PACS begins to count the time it must be quiet
        plain.run("monai_tl", "inbox", "--once")
        until(lambda: plain.run("monai_tl", "inbox", "--once") and len(ledger_rows(plain.folder)) == N_KILLS, 60, "all")
        found = snapshot(plain.folder, running)
    assert len(found.stored) == N_KILLS
    return Base(place, port, studies, found)


def test_there_are_at_least_fifty_kills_and_five_of_each_kind() -> None:
    counts = Counter(kind for kinds in ROUNDS for kind in kinds)
    assert sum(counts.values()) >= 50
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 5


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path / "workspace", ignore_errors=True)


@pytest.mark.parametrize("seed", range(N_ROUNDS))
def test_a_round_of_kills_ends_as_if_nothing_had_been(base: Base, home: Path, seed: int) -> None:
    workspace = shutil.copytree(base.place.folder, home / "workspace", symlinks=True)
    with service_in(home, workspace, base.place.site, base.pacs_port) as world:
        # a worker that dies alone leaves its runs behind, one that dies with its container takes them along
        world.services["worker"].is_container = seed % 2 == 0
        going = Round(world, base.undisturbed, random.Random(seed))
        for kind, study in zip(ROUNDS[seed], base.studies, strict=True):
            world.deliver(study)
            going.kill(kind)
            going.check()
        print(f"round {seed}: {[f'{kind}: {line[-60:]}' for kind, line in going.killed]}")
        assert [kind for kind, _ in going.killed] == ROUNDS[seed]
        until(going.is_finished, 900, "training and inbox end as without faults")
        going.check()
        world.await_all()
        assert stored_segs(world.pacs) == base.undisturbed.stored
        # of no dead run the dashboard says for ever that it goes on
        for run in [one["id"] for flow in ("training", "inbox") for one in world.server.runs(*_OPEN, flow=flow)]:
            world.server.ended(run, 480)
        starts = {name: service.n_starts for name, service in world.services.items()}
    print(f"round {seed}: starts {starts}")
    assert products(workspace) == base.undisturbed.products
    assert sources_of(sorted((workspace / "outbox").rglob("*.dcm"))) == [series_uid(n) for n in range(N_KILLS)]
    no_lock_blocks(workspace)
    assert world.workspace.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")
