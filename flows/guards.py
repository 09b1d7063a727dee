"""What a server needs besides flows: the slot of the GPU, an end for runs whose process is gone, and messages.

``python -m flows.guards`` sets them up on the server of PREFECT_API_URL; ``monai-tl serve`` does it by itself. Doing it
again changes nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from flows.server import OWN_VARIABLE

GPU_VARIABLE = "MONAI_TL_GPUS"
"""So many trainings or predictions at a time on this machine; else as many as the system shows NVIDIA devices."""
WEBHOOK_VARIABLE = "MONAI_TL_WEBHOOK"
"""Where messages go; may hold a secret, so it is of the environment and never of params.yaml."""
CRASH, TELL = "monai_tl: runs whose process is gone", "monai_tl: messages"
STUCK = "monai_tl: runs that never began"
SILENCE_S = 120
"""A run that has not shown life for so long is over; it does every PREFECT_FLOWS_HEARTBEAT_FREQUENCY (30 s)."""
PENDING_S = 300
"""A run that somebody took and that has not begun after so long never will: images of containers come sooner."""
_BLOCK = "monai-tl-messages"
_LEASE_S = 60
BEAT, _BEGUN = "prefect.flow-run.heartbeat", "prefect.flow-run.Running"
_TAKEN = {"prefect.flow-run.Pending", "prefect.flow-run.Submitting"}
"""First by the worker, then for the process that it is about to start."""
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused", "AwaitingRetry")
_TOLD = ("prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.Suspended",
         "monai_tl.inbox.drift", "monai_tl.inbox.quarantine")  # fmt: skip
_WORDS = '{"event": "{{ event.event }}", "time": "{{ event.occurred }}", "resource": "{{ event.resource.id }}"}'
"""No payload: whoever gets it looks at the dashboard, which asks for a password."""

NO_LIFE, NEVER_BEGAN = "its process has shown no life any more", "it was taken and never began: its worker is gone"


def n_gpus() -> int:
    """GPUs of this machine that runs share by turns; 0 where there is none."""
    given = os.environ.get(GPU_VARIABLE, "")
    if given.isdigit():
        return int(given)
    return sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))


def gpu_limit() -> str:
    """Name of the limit: one a machine, since a server may have workers on several."""
    return f"monai_tl-gpu-{socket.gethostname()}"


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Wait for a GPU of this machine, and hold it; a machine without one makes nobody wait.

    The slot is a lease that is renewed while the process lives, so a killed one gives it back within a minute. A server
    that a run has for itself alone knows no other run, and would take its leases with it: there nobody waits.
    """
    if not n_gpus() or os.environ.get(OWN_VARIABLE):
        yield
        return
    make_limit()
    with concurrency(gpu_limit(), occupy=1, lease_duration=_LEASE_S, strict=True):
        yield


def make_limit() -> None:
    """The limit as it must be."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(gpu_limit(), n_gpus())


def set_up() -> None:
    """Bring limit and automations to what they must be; each exists once, however often this is called."""
    if n_gpus():
        make_limit()
    ends = {f"prefect.flow-run.{name}" for name in _ENDS}
    words = "A run that shows no life any more is marked as crashed, so that the next one can take over"
    # one that was killed before its first sign of life has begun all the same
    _bring(_silent(CRASH, words, {BEAT, _BEGUN}, {BEAT, *ends}, SILENCE_S, NO_LIFE))
    words = "A run whose worker died before it began is marked as crashed"
    _bring(_silent(STUCK, words, _TAKEN, {_BEGUN, *ends}, PENDING_S, NEVER_BEGAN))
    url = os.environ.get(WEBHOOK_VARIABLE, "")
    if url:
        block: Any = Webhook(url=SecretStr(url)).save(_BLOCK, overwrite=True)
        _bring(
            AutomationCore(
                name=TELL,
                description=f"What a person should know, to the address of {WEBHOOK_VARIABLE}",
                trigger=EventTrigger(expect=set(_TOLD), posture=Posture.Reactive, threshold=1),
                actions=[CallWebhook(block_document_id=block, payload=_WORDS)],
            )
        )


def _silent(name: str, words: str, after: set[str], expect: set[str], seconds: int, message: str) -> AutomationCore:
    """Acts on a run of which nothing that was expected has come in time."""
    return AutomationCore(
        name=name,
        description=words,
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)],
    )


def _bring(wanted: AutomationCore) -> None:
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(wanted.name)
        for one in known[1:]:
            client.delete_automation(one.id)
        if known:
            client.update_automation(known[0].id, wanted)
        else:
            client.create_automation(wanted)


if __name__ == "__main__":
    set_up()
    sys.exit(0)
