"""DICOMweb (PS3.18): studies found by QIDO-RS, fetched by WADO-RS, objects stored by STOW-RS and seen to be stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from monai_tl.dicom.index import OTHER_MODALITIES
from monai_tl.errors import ConfigError, PacsError

PASSWORD_VARIABLE = "MONAI_TL_PACS_AUTH"  # noqa: S105 - where it is, not what it is
_ANY_SYNTAX = (("application/dicom", "*"),)
_PAGE = 200
_CHECK = "check inbox.pacs.url and the PACS; the next run tries again"


@dataclass(frozen=True)
class RemoteStudy:
    """A study in a PACS. Its UIDs stay in memory.

    Attributes:
        series: SeriesInstanceUID of each series of images.
        n_instances: In these series.
    """

    uid: str
    series: tuple[str, ...]
    n_instances: int


class DicomWeb:
    """A PACS by DICOMweb.

    Args:
        url: Root of the three services.
        timeout_s: Longest silence, s.

    Raises:
        ConfigError: The extra is not installed, or ``MONAI_TL_PACS_AUTH`` is no ``name:password``.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            import requests
            from dicomweb_client.web import DICOMwebClient
        except ImportError:
            raise ConfigError("inbox.pacs: needs the extra pacs; pip install 'monai_tl[pacs]'") from None
        session = requests.Session()
        secret = os.environ.get(PASSWORD_VARIABLE)
        if secret:
            name, colon, password = secret.partition(":")
            if not colon:
                raise ConfigError(f"{PASSWORD_VARIABLE}: is not of the form name:password", "environment")
            session.auth = (name, password)
        self._client: Any = DICOMwebClient(url, session=session, timeout=timeout_s)
        # the next run is the retry
        self._client.set_http_retry_params(retry=False)

    def find(self, modality: str, days: int | None, today: date | None = None) -> list[str]:
        """StudyInstanceUIDs of studies with a series of a modality.

        Args:
            modality: As in DICOM.
            days: By study date, today and the days before it; None for all.
            today: Default the machine's.

        Raises:
            PacsError: The PACS cannot be reached, or does not answer as it should.
        """
        filters: dict[str, str] = {"ModalitiesInStudy": modality}
        if days is not None:
            last = today or date.today()
            filters["StudyDate"] = f"{last - timedelta(days=days - 1):%Y%m%d}-{last:%Y%m%d}"
        with _faults("search"):
            uids = _all("StudyInstanceUID", self._client.search_for_studies, search_filters=filters)
        return sorted(uids)

    def study(self, uid: str) -> RemoteStudy:
        """What there is of a study.

        Raises:
            PacsError: The PACS cannot be reached, or does not answer as it should.
        """
        with _faults("look into a study"):
            found = self._series(uid)
            images = {name: one for name, one in found.items() if one.get("Modality", "") not in OTHER_MODALITIES}
            counts = [int(one.get("NumberOfSeriesRelatedInstances", 0) or 0) for one in images.values()]
        return RemoteStudy(uid, tuple(sorted(images)), sum(counts))

    def _series(self, study: str) -> dict[str, Dataset]:
        fields = ["NumberOfSeriesRelatedInstances"]
        return _all("SeriesInstanceUID", self._client.search_for_series, study_instance_uid=study, fields=fields)

    def fetch(self, study: RemoteStudy, folder: Path) -> int:
        """Write the images of a study into an empty folder, in the transfer syntax they are stored in.

        Returns:
            How many.

        Raises:
            PacsError: The PACS cannot be reached, or sent another number than it has.
            OSError: They cannot be written.
        """
        number = 0
        for series in study.series:
            with _faults("fetch"):
                instances = iter(self._client.iter_series(study.uid, series, media_types=_ANY_SYNTAX))
            while True:
                with _faults("fetch"):
                    one = next(instances, None)
                if one is None:
                    break
                _write(folder / f"{number:06d}.dcm", one)
                number += 1
        if study.n_instances and number != study.n_instances:
            raise PacsError(f"the PACS sent {number} of {study.n_instances} images of a study; {_CHECK}")
        return number

    def store(self, path: Path) -> None:
        """Store a SEG, and see that it is there, on a series that is there, as it was sent.

        Storing the same object twice changes nothing: its UID follows from what it says.

        Raises:
            PacsError: The PACS cannot be reached, refuses it, or has not what was sent.
        """
        sent = dcmread(path)
        with _faults("store"):
            answer = self._client.store_instances([sent])
        failed = answer.get("FailedSOPSequence") or ()
        if failed:
            code = failed[0].get("FailureReason", "none given")
            raise PacsError(
                f"the PACS refused the SEG (FailureReason {code}); its log says why; the next run tries again"
            )
        study, series = str(sent.StudyInstanceUID), str(sent.SeriesInstanceUID)
        with _faults("look for what was stored"):
            metadata = self._client.retrieve_instance_metadata(study, series, str(sent.SOPInstanceUID))
            stored = Dataset.from_json(metadata, bulk_data_uri_handler=lambda tag, vr, uri: None)
            referred = _referred(sent)
            there = self._series(study).keys()
        if _referred(stored) != referred:
            raise PacsError("the PACS changed the SEG: it refers to another series than the one that was sent")
        if not referred <= there:
            raise PacsError("the SEG is stored, but the PACS has not the series in its study that it refers to")


def _write(path: Path, one: Dataset) -> None:
    try:
        dcmwrite(path, one, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:
        # its text may quote a value
        raise PacsError(f"the PACS sent an object that is no DICOM ({type(error).__name__}); {_CHECK}") from None


def _all(key: str, search: Callable[..., list[dict[str, Any]]], **options: Any) -> dict[str, Dataset]:
    """Every match of a search, by UID, page after page.

    A page without anything new is the end: Orthanc 1.10 knows no offset and gives the same page for ever, others give
    pages shorter than was asked for.
    """
    found: dict[str, Dataset] = {}
    n_before, offset = -1, 0
    while len(found) > n_before:
        n_before = len(found)
        page = search(**options, limit=_PAGE, offset=offset)
        for one in page:
            dataset = Dataset.from_json(one)
            found[str(dataset.get(key, ""))] = dataset
        offset += len(page)
    found.pop("", None)
    return found


def _referred(seg: Dataset) -> set[str]:
    return {str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence") or ()}


@contextmanager
def _faults(what: str) -> Iterator[None]:
    """Make PacsError of what goes wrong: the text of the original names studies."""
    import requests

    try:
        yield
    except PacsError:
        raise
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        hint = f"set {PASSWORD_VARIABLE}=name:password" if status in (401, 403) else _CHECK
        raise PacsError(f"the PACS answered {status} to a request to {what}; {hint}") from None
    except requests.Timeout:
        raise PacsError(f"the PACS was silent for longer than inbox.pacs.timeout_s on a request to {what}") from None
    except requests.ConnectionError:
        raise PacsError(f"the PACS cannot be reached ({what}); {_CHECK}") from None
    except OSError as error:
        raise PacsError(f"the connection to the PACS failed ({what}): {error.strerror or 'no reason given'}") from None
    except Exception as error:
        raise PacsError(
            f"what the PACS answered to a request to {what} is no DICOMweb ({type(error).__name__}); {_CHECK}"
        ) from None
