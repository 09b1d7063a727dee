"""Labels that came through the inbox into the data: ``python -m monai_tl.commands.corrections STEP``.

The workspace's flow starts this while it holds the workspace, tells DVC, and notes here what became of it. Each step
may be ended at any moment and done again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_tl.config import IngestConfig, Params, load_params
from monai_tl.dicom.authorship import author_of
from monai_tl.dicom.deidentify import Pseudonyms, load_key
from monai_tl.dicom.image_series import ImageSeries
from monai_tl.dicom.index import index_folder
from monai_tl.dicom.label_object import LabelObject, read_label_object
from monai_tl.dicom.labelled_series import read_labelled_series
from monai_tl.errors import ConfigError, DataError, MonaiTLError
from monai_tl.files import sha256_file, sha256_of, sweep_abandoned, temporary_folder, whole_folder, write_json
from monai_tl.inbox.arrivals import Label, Look, look
from monai_tl.inbox.corrections import FAILED, Corrections, corrections_at, n_cases
from monai_tl.inbox.ledger import ledger_at
from monai_tl.inbox.report import labels_told
from monai_tl.inbox.settings import FROM_INBOX, ledger_of, section_of
from monai_tl.stages import STATE_FOLDER
from monai_tl.stages.ingest import read_listed, source_folder

REPORT_FILE = "corrections.json"
"""In the state folder: what the ledger says after a step, for the flow."""
_MISSING = "the image series that it refers to is neither in the inbox nor in the data; it waits for them"
_CONTESTED = "contested_class"


@dataclass
class _Held:
    """Files by SeriesInstanceUID. Patient data: never written."""

    images: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    labels: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    study: dict[str, str] = field(default_factory=dict)

    def enter(self, found: Iterable[ImageSeries]) -> _Held:
        for series in found:
            self.images[series.uid] |= {path.resolve() for path in series.paths}
            self.labels[series.uid] |= {label.path.resolve() for label in series.labels}
            self.study[series.uid] = series.study_uid
        return self

    def named_by(self, label: LabelObject) -> set[str]:
        """Series that a label may be drawn on."""
        named = label.referenced_series & self.images.keys()
        return set(named) or {uid for uid, study in self.study.items() if study == label.study_uid}


@dataclass(frozen=True)
class _Place:
    ingest: IngestConfig
    source: Path
    links: Path
    hasher: Pseudonyms


@dataclass(frozen=True)
class _Wanted:
    """What the folder of one series must hold."""

    item: str
    images: frozenset[Path]
    labels: frozenset[Path]


class _Missing(DataError):
    """May come yet."""


def run(workspace: Path, step: str, run_id: str = "") -> dict[str, Any]:
    """Do a step, and say what the ledger says then.

    Args:
        workspace: Held by the caller.
        step: ``take`` puts what waits into the data; ``added``: DVC knows it; ``training``: a run was asked for;
            ``done``: it has ended well; ``again``: it was ended by somebody; ``failed``: it has failed; ``look`` does
            nothing.
        run_id: Of the training.

    Returns:
        ``states``: how many labels are in each; ``n_cases``: series for which a training may be asked now; ``runs``:
        asked for; ``told``: labels of which a person should know; ``failed``: what is said of trainings that failed;
        ``key``: the same for the same labels and the same runs before, so that no training is asked for twice.

    Raises:
        ConfigError: params.yaml has no section ``inbox``, or the data are no DICOM.
        MonaiTLError: The ledger cannot be used.
    """
    params = load_params(workspace)
    config = section_of(params)
    path = ledger_of(workspace, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with corrections_at(path) as table:
        if step == "take":
            _take(workspace, params, table)
        elif step == "added":
            table.add([row.content for row in table.rows("taken")])
        elif step == "training":
            table.start([row.content for row in table.rows("added")], run_id)
        elif step in ("done", "again"):
            table.end(run_id, is_done=step == "done")
        elif step == "failed":
            table.fail(run_id, config.max_attempts, config.retry_s)
        rows, added, due = table.rows(), table.rows("added"), table.due(config.max_attempts)
    states = {state: sum(row.state == state for row in rows) for state in {row.state for row in rows}}
    found = {
        "states": states,
        "n_cases": n_cases(due),
        "told": labels_told(rows),
        "failed": sorted({row.reason for row in added if row.code == FAILED}),
        "runs": sorted({row.run for row in rows if row.state == "training"}),
        "key": sha256_of(*(f"{row.content} {row.run}" for row in added)),
    }
    write_json(workspace / STATE_FOLDER / REPORT_FILE, found)
    return found


def _take(workspace: Path, params: Params, table: Corrections) -> None:
    config = section_of(params)
    hasher = Pseudonyms(load_key(Path(params.ingest.key_file)))
    source = source_folder(workspace, params.ingest)
    if read_listed(source, params.ingest) is not None:
        raise ConfigError("inbox.retrain_after: ingest.source is no folder of DICOM, so no label can be added to it")
    path = ledger_of(workspace, config)
    with ledger_at(path, hasher.key_id) as ledger:
        found = look(workspace / config.folder, hasher, ledger, config.settle_s)
    for label in found.labels.values():
        table.see(label.content, label.study, label.arrived)
    waiting = table.rows("seen")
    if not waiting:
        return
    place = _Place(params.ingest, source, path.parent, hasher)
    # what a killed process has half made would go into the data
    sweep_abandoned(source / FROM_INBOX, "series-*")
    held = _Held().enter(index_folder(source, hasher).series)
    for row in waiting:
        label_file = found.labels.get(row.content)
        if label_file is None:
            table.wait(row.content, "gone", "it was removed from the inbox before its turn; deliver it again")
            continue
        try:
            table.take(row.content, _take_one(label_file, found, held, place))
        except _Missing as error:
            table.wait(row.content, error.code, str(error))
        except DataError as error:
            table.refuse(row.content, error.code, str(error))
        except OSError as error:
            # the text would name a file
            table.wait(row.content, "machine", f"input or output failed ({error.strerror}); check disk and permissions")


def _take_one(label: Label, found: Look, held: _Held, place: _Place) -> str:
    """Put one label, and its images where they are not there, into the data; the names of its series.

    Raises:
        DataError: It is no label to learn from.
    """
    author = author_of(label.path)
    if author != "person":
        words = "it is a result of this pipeline" if author == "own" else "all its structures say AUTOMATIC"
        raise DataError(f"{words}, and a network learns from what persons drew; save it as MANUAL once it is corrected",
                        "own" if author == "own" else "automatic")  # fmt: skip
    with temporary_folder(place.links, label.study) as links:
        study = [path for one in found.whole.values() if one.study == label.study for path in one.paths]
        come = _Held().enter(index_folder(_linked(links / "study", study), place.hasher).series)
        said = read_label_object(label.path)
        series = held.named_by(said) | come.named_by(said)
        wanted = [_judge(label, said, uid, held, come, links, place) for uid in sorted(series)]
    kept = [(uid, one) for uid, one in zip(sorted(series), wanted, strict=True) if one is not None]
    if not kept:
        raise _Missing(_MISSING, "missing_series")
    for uid, one in kept:
        _put(one, uid, held, place)
    return ",".join(one.item for _, one in kept)


def _linked(folder: Path, paths: Iterable[Path]) -> Path:
    folder.mkdir()
    for number, path in enumerate(sorted(paths)):
        (folder / f"{number:06d}").symlink_to(path.resolve())
    return folder


def _judge(
    label: Label, said: LabelObject, uid: str, held: _Held, come: _Held, links: Path, place: _Place
) -> _Wanted | None:
    """What a series' folder must hold so that this label counts; None where it is not drawn on this series.

    A label that came before it through the inbox gives way; one that is in the data otherwise does not.

    Raises:
        DataError: It cannot be used.
    """
    images = held.images.get(uid) or come.images.get(uid) or set()
    own = place.source / FROM_INBOX / place.hasher.item("series", uid)
    earlier = {path for path in held.labels.get(uid, set()) if path.parent == own.resolve()}
    others = held.labels.get(uid, set()) - earlier
    for kept in ({*earlier, *others}, others):
        folder = _linked(links / f"{len(list(links.iterdir()))}", {*images, *kept, label.path})
        code, reason = _fault(folder, said, place)
        if code == "missing_series":
            return None
        if not code:
            lying = {path for path in images if path.parent == own.resolve()}
            new = images if not held.images.get(uid) else lying
            return _Wanted(own.name, frozenset(new), frozenset({*(kept & earlier), label.path.resolve()}))
        if code != _CONTESTED:
            break
    if code == _CONTESTED:
        reason = "the data hold another label of its series that draws the same differently; keep one of the two there"
    raise DataError(reason, code)


def _fault(folder: Path, said: LabelObject, place: _Place) -> tuple[str, str]:
    """Why the label is not used with the images and labels of this folder; empty where it is."""
    index = index_folder(folder, place.hasher)
    uid = said.sop_instance_uid
    drawn = [one for one in index.series if any(label.sop_instance_uid == uid for label in one.labels)]
    if not drawn:
        item = place.hasher.item("label", uid)
        first = next((one for one in index.rejected if one.item == item), None)
        return (first.code, first.reason) if first else ("missing_series", _MISSING)
    for series in drawn:
        read = read_labelled_series(series, place.ingest.scheme, place.ingest.min_slices)
        for one in read.refused:
            if one.label.sop_instance_uid == uid:
                return one.code, one.reason
    return "", ""


def _put(one: _Wanted, uid: str, held: _Held, place: _Place) -> None:
    """The series' folder, whole or as before."""
    folder = place.source / FROM_INBOX / one.item
    lying = {
        path for paths in (held.images[uid], held.labels[uid]) for path in paths if path.parent == folder.resolve()
    }
    with whole_folder(folder) as new:
        for number, path in enumerate(sorted(one.images)):
            shutil.copyfile(path, new / f"image-{number:06d}.dcm")
        # the same file twice where a process was ended before it could note the first
        labels = {sha256_file(path): path for path in sorted(one.labels)}
        for number, path in enumerate(labels.values()):
            shutil.copyfile(path, new / f"label-{number:02d}.dcm")
    for paths in (held.images[uid], held.labels[uid]):
        paths -= lying
    held.enter(index_folder(folder, place.hasher).series)
    # a label whose images lie elsewhere in the data has no series in this folder
    held.labels[uid] |= {path.resolve() for path in folder.glob("label-*")}


def main() -> int:
    """Entry point; the exit status is the error's."""
    parser = argparse.ArgumentParser(prog="python -m monai_tl.commands.corrections")
    parser.add_argument("step", choices=("look", "take", "added", "training", "done", "again", "failed"))
    parser.add_argument("run", nargs="?", default="")
    given = parser.parse_args()
    try:
        run(Path.cwd(), given.step, given.run)
    except MonaiTLError as error:
        sys.stderr.write(f"monai-tl: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
