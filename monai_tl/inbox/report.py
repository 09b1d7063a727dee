"""What the ledger says, in numbers and in words: how many, how fast, in which order, what was given up and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from monai_tl.inbox.arrivals import Look
from monai_tl.inbox.corrections import Correction, Step
from monai_tl.inbox.drift import Drift
from monai_tl.inbox.entries import Entry, State

_DAY_S = 86_400.0
LISTED = 50
"""Studies that are told one by one in words and on the dashboard; the file holds all that wait for a person."""


def summarise(
    entries: Sequence[Entry],
    drift: Drift,
    look: Look | None = None,
    worked: Sequence[Entry] = (),
    faults: Sequence[str] = (),
    labels: Sequence[Correction] = (),
) -> dict[str, Any]:
    """Everything as JSON; pseudonyms, counts and reasons alone.

    Args:
        entries: Of the ledger.
        drift: Of the done ones.
        look: At the inbox, where one was made.
        worked: The rows of this pass.
        faults: What went wrong with the pass as a whole.
        labels: That came through the inbox.
    """
    now = time.time()
    counts = Counter(entry.state for entry in entries)
    done = [entry for entry in entries if entry.state == "done"]
    waiting = [entry for entry in entries if entry.state in ("seen", "failed")]
    gone = [entry for entry in waiting if look is not None and entry.content not in look.whole]
    return {
        "schema_version": 1,
        "faults": list(faults),
        "n_worked": len(worked),
        "given_up": [entry.study for entry in worked if entry.state == "quarantined"],
        "states": {state: counts[state] for state in get_args(State)},
        "inbox": None if look is None else {
            "new": look.n_new, "settling": look.n_settling, "without_images": look.n_without_images,
            "no_dicom": look.n_other, "gone": len(gone),
        },
        "throughput": _throughput(done, waiting, now),
        "studies": [_row(entry) for entry in sorted(done, key=lambda one: one.finished)[-LISTED:]],
        "refused": [_row(entry) for entry in entries if entry.state in ("failed", "quarantined")],
        "labels": _labels(labels),
        "unsent": [{"study": entry.study, "reason": entry.sent} for entry in done if entry.sent not in ("", "stored")],
        "drift": {
            "score": None if drift.shift is None else drift.shift.score,
            "bound": drift.bound,
            "alarm": drift.is_alarm,
            "n_studies": drift.n_studies,
            "words": drift.describe(),
            "features": [] if drift.shift is None else [one.model_dump(mode="json") for one in drift.shift.features],
            "scores": dict(drift.scores),
        },
    }  # fmt: skip


def _labels(rows: Sequence[Correction]) -> dict[str, Any]:
    """Of the labels that came; our own results among them are nobody's news."""
    counts = Counter(row.state for row in rows if row.code != "own")
    return {"states": {state: counts[state] for state in get_args(Step)}, "told": labels_told(rows)}


def labels_told(rows: Sequence[Correction]) -> list[dict[str, str]]:
    """Labels that wait, were refused or had a training that failed, and why; our own results among them are no news."""
    told = [row for row in rows if row.code and row.code != "own" and row.state in ("seen", "refused", "added")]
    return [{"study": row.study, "state": row.state, "code": row.code, "reason": row.reason} for row in told]


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "study": entry.study,
        "state": entry.state,
        "attempts": entry.attempts,
        "instances": entry.n_instances,
        "segmented": entry.n_segmented,
        "refused": entry.n_refused,
        "seconds": round(entry.finished - entry.started, 1),
        "waited": round(entry.started - entry.arrived, 1),
        "code": entry.code,
        "reason": entry.reason,
        "sent": entry.sent,
    }


def _throughput(done: Sequence[Entry], waiting: Sequence[Entry], now: float) -> dict[str, Any]:
    recent = [entry for entry in done if now - entry.finished <= _DAY_S]
    seconds = sorted(entry.finished - entry.started for entry in recent)
    busy = sum(seconds)
    return {
        "done_last_day": len(recent),
        "median_seconds": round(seconds[len(seconds) // 2], 2) if seconds else None,
        "studies_an_hour_of_work": round(3600.0 * len(recent) / busy, 1) if busy > 0.0 else None,
        "longest_wait_s": round(max((entry.started - entry.arrived for entry in recent), default=0.0), 1),
        "oldest_waiting_s": round(max((now - entry.arrived for entry in waiting), default=0.0), 1),
    }


def describe(found: dict[str, Any]) -> str:
    """The same in words."""
    states, speed, inbox = found["states"], found["throughput"], found["inbox"]
    lines = [", ".join(f"{count} {state}" for state, count in states.items() if count) or "No study yet."]
    if inbox is not None:
        words = {
            "new": "new", "settling": "still arriving", "without_images": "without images",
            "no_dicom": "files that are no DICOM", "gone": "gone from the inbox before their turn",
        }  # fmt: skip
        said = [f"{inbox[key]} {word}" for key, word in words.items() if inbox[key]]
        lines += [f"Inbox: {', '.join(said)}"] if said else []
    if speed["median_seconds"] is not None:
        lines.append(
            f"Last day: {speed['done_last_day']} done, {speed['median_seconds']:g} s each, "
            f"{speed['studies_an_hour_of_work']:g} an hour of work; the longest wait was {speed['longest_wait_s']:g} s"
        )
    if states["seen"] + states["failed"]:
        lines.append(f"The oldest that waits arrived {speed['oldest_waiting_s']:g} s ago")
    lines += _latest(
        f"{row['study']} {row['state']} after {row['attempts']} attempts: {row['code']}: {row['reason']}"
        for row in found["refused"]
    )
    came = [f"{count} {state}" for state, count in found["labels"]["states"].items() if count]
    lines += [f"Labels that came: {', '.join(came)}"] if came else []
    lines += _latest(
        f"a label of {row['study']} {row['state']}: {row['code']}: {row['reason']}" for row in found["labels"]["told"]
    )
    lines += _latest(f"{row['study']} not in the PACS: {row['reason']}" for row in found["unsent"])
    return "\n".join([*lines, found["drift"]["words"], *found["faults"]])


def _latest(lines: Iterable[str]) -> list[str]:
    """The last of them, and how many come before: each pass of the inbox tells them anew, to a log that keeps all."""
    kept = list(lines)
    more = len(kept) - LISTED
    return [f"({more} more before these, all in .monai_tl/inbox.json)", *kept[-LISTED:]] if more > 0 else kept
