"""The inbox and a PACS: new studies come into the folder, SEG go back, each as often as it takes and no oftener."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from monai_tl.dicom.deidentify import Pseudonyms
from monai_tl.dicom.web import DicomWeb, RemoteStudy
from monai_tl.errors import MonaiTLError, PacsError
from monai_tl.files import temporary_folder
from monai_tl.inbox.arrivals import COMPLETE_FILE
from monai_tl.inbox.ledger import Ledger
from monai_tl.progress import Progress
from monai_tl.sections import PacsConfig

_ENOUGH = 3
STORED = "stored"
_SEG = "*/segmentation.dcm"


@dataclass
class Exchanged:
    """What went to and fro.

    Attributes:
        faults: What went wrong; the PACS is asked again in the next pass.
    """

    n_fetched: int = 0
    n_waiting: int = 0
    n_stored: int = 0
    faults: list[str] = field(default_factory=list)


def fetch_new(
    pacs: DicomWeb, config: PacsConfig, modality: str, inbox: Path, hasher: Pseudonyms, ledger: Ledger, settle_s: float
) -> Exchanged:
    """Bring what is new into the inbox. A study that still grows in the PACS waits; one that grew comes again.

    A study's folder appears by one rename and says that it is whole, so it need not settle.

    Args:
        pacs: Open.
        config: Which studies.
        modality: Where the settings name none.
        inbox: Gets a folder ``study-…`` each.
        hasher: Names it.
        ledger: Remembers what was fetched.
        settle_s: For so long the number of images must have stayed the same.
    """
    done, n_in_a_row = Exchanged(), 0
    try:
        for uid in pacs.find(config.modality or modality, config.days):
            name = hasher.item("study", uid)
            try:
                study = pacs.study(uid)
                since, is_fetched = ledger.look_remote(name, study.n_instances)
                if is_fetched or not study.series:
                    continue
                if since < settle_s:
                    done.n_waiting += 1
                    continue
                _fetch(pacs, study, inbox / name)
            except PacsError as error:
                # one study that the PACS cannot give holds up no other; a PACS that is away does
                done.faults.append(f"{name}: {error}")
                n_in_a_row += 1
                if n_in_a_row == _ENOUGH:
                    break
                continue
            n_in_a_row = 0
            ledger.mark_fetched(name, study.n_instances)
            done.n_fetched += 1
    except PacsError as error:
        done.faults.append(str(error))
    except OSError as error:
        words = error.strerror or type(error).__name__
        done.faults.append(f"inbox.folder cannot take what the PACS has: {words}; check disk space and permissions")
    return done


def _fetch(pacs: DicomWeb, study: RemoteStudy, folder: Path) -> None:
    with temporary_folder(folder.parent, folder.name) as temporary:
        pacs.fetch(study, temporary)
        (temporary / COMPLETE_FILE).touch()
        if folder.exists():
            # an earlier fetch of less of it: what it holds is in this one too
            with temporary_folder(folder.parent, folder.name) as old:
                folder.rename(old / "old")
                temporary.rename(folder)
        else:
            temporary.rename(folder)


def store_results(pacs: DicomWeb, outbox: Path, ledger: Ledger) -> Exchanged:
    """Store each SEG that the PACS has not been seen to have, and note what became of it."""
    done = Exchanged()
    # of a study that was done twice the outbox holds the later result alone
    latest = {entry.study: entry for entry in sorted(ledger.entries("done"), key=lambda one: one.finished)}
    waiting = [entry for entry in latest.values() if entry.sent != STORED]
    progress = Progress("store", total=len(waiting))
    for entry in waiting:
        try:
            found = sorted((outbox / entry.study).glob(_SEG))
            for seg in found:
                pacs.store(seg)
            if not found:
                raise PacsError("its result is gone from the outbox, so there is nothing to store")
        except MonaiTLError as error:
            ledger.mark_sent(entry.content, str(error))
            done.faults.append(f"{entry.study}: {error}")
            progress.advance(f"{entry.study} not stored", is_warning=True)
            continue
        ledger.mark_sent(entry.content, STORED)
        done.n_stored += 1
        progress.advance(f"{entry.study} stored")
    return done
