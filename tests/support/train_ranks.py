"""Train a strategy on balls in memory as one of the processes that torchrun starts: ``train_ranks.py FOLDER SETTINGS``.

The first writes ``history.json`` and ``weights.pt`` into FOLDER. Settings are JSON: those of ``make_settings``, besides
``kill``: [rank, step] ends that process at that step as SIGKILL does, once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from ladder_runs import PLAIN_INSTANCE, make_settings, make_trainer, make_unet

from monai_tl.errors import MonaiTLError
from monai_tl.training.ranks import joined_ranks


def main() -> int:
    folder = Path(sys.argv[1])
    settings = json.loads(sys.argv[2])
    kill = settings.pop("kill", None)
    dropout = settings.pop("dropout", 0.0)
    config = make_settings(settings.pop("strategy"), **settings)
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        trainer = make_trainer(folder / "checkpoints", config, make_unet(PLAIN_INSTANCE, dropout), ranks=ranks)
        if kill is not None and not (folder / "killed").exists():
            step = trainer.tuning.step

            def step_or_die(number: int, rate: float | None = None) -> None:
                if [ranks.rank, number] == kill:
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                step(number, rate)

            trainer.tuning.step = step_or_die  # type: ignore[method-assign]
        try:
            outcome = trainer.run()
        except MonaiTLError as error:
            print(f"rank {ranks.rank}: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        if ranks.is_first:
            torch.save(outcome.state_dict, folder / "weights.pt")
            (folder / "history.json").write_text(json.dumps([asdict(row) for row in outcome.position.history]))
        else:
            (folder / f"rank-{ranks.rank}.json").write_text(
                json.dumps([asdict(row) for row in outcome.position.history])
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
