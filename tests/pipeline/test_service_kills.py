"""Everything a service is made of, killed at random: flow, DVC, stage, worker, server and PACS.

A round is a service of its own over a small cohort: a training by eight real stages, and studies that come to the PACS
one after another. Nobody helps it but a supervisor that starts again what has ended.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from inbox_world import series_uid, sources_of
from service_kills import KINDS, Base, Round, make_base, no_lock_blocks, plan, products, stored_segs
from service_world import WORKERS, service_in
from workspaces import until

pytestmark = [pytest.mark.pipeline, pytest.mark.long]

N_ROUNDS, N_KILLS = 3, 18
_OPEN = ("PENDING", "RUNNING", "CANCELLING")
ROUNDS = [plan(seed, N_KILLS) for seed in range(N_ROUNDS)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("service"), N_KILLS)


def test_there_are_at_least_fifty_kills_and_five_of_each_kind() -> None:
    counts = Counter(kind for kinds in ROUNDS for kind in kinds)
    assert sum(counts.values()) >= 50
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 5


@pytest.mark.parametrize("seed", range(N_ROUNDS))
def test_a_round_of_kills_ends_as_if_nothing_had_been(base: Base, tmp_path: Path, seed: int) -> None:
    workspace = shutil.copytree(base.place.folder, tmp_path / "workspace", symlinks=True)
    with service_in(tmp_path, workspace, base.place.site, base.pacs_port) as world:
        going = Round(world, base.undisturbed, random.Random(seed))
        for kind, study in zip(ROUNDS[seed], base.studies, strict=True):
            if kind == "worker":
                # one that dies alone leaves its runs behind, one that dies with its container takes them along
                for name in WORKERS:
                    world.services[name].is_container = not world.services[name].is_container
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
    assert sources_of(sorted((workspace / "outbox").rglob("*.dcm"))) == sorted(series_uid(n) for n in range(N_KILLS))
    no_lock_blocks(workspace)
    assert world.workspace.run("dvc", "status").strip().endswith("Data and pipelines are up to date.")
