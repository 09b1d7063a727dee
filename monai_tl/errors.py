"""The error tree. Every message says what is wrong, where, and what to do next; never patient data.

MonaiTLError
├─ ConfigError    exit 2   every fault at once, each with its key path
├─ DataError      exit 3   DicomError · GeometryError · LabelError · LeakageError · PrivacyError
├─ SourceError    exit 4   WeightsError · ContractError
├─ TrainingError  exit 5   DivergenceError · CheckpointError · RankLostError
├─ StageError     exit 6   wraps stage + case, raised ``from`` the cause
├─ WorkerLostError exit 6  a process that worked over cases was ended by the system
├─ PromotionError exit 7
└─ PacsError      exit 8
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

DEBUG_VARIABLE = "MONAI_TL_DEBUG"
"""Set to 1 to see the traceback of an unexpected error, in which its text may name a patient."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')

_MACHINE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""The disk is full, a limit of file sizes is reached, or the like: any other case would fail too."""
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|ALLOC_FAILED|bad allocation|bad_alloc")


class MonaiTLError(Exception):
    """Base of all errors this package raises on purpose."""

    exit_code = 1


class ConfigError(MonaiTLError):
    """params.yaml or a command's arguments are wrong; lists every fault at once.

    Args:
        faults: One line a fault, each beginning with its key path (``finetune.max_steps: ...``).
        where: The file or command that holds them.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str] | str, where: str = "params.yaml") -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{where}: {count}\n" + "\n".join(f"  {fault}" for fault in self.faults))


class DataError(MonaiTLError):
    """The input data cannot be used as they are.

    Args:
        message: What is wrong and what to do; no tag value of a patient.
        code: A short stable word for rejected.json, e.g. ``missing_slice``; each kind of error has its own default.
    """

    exit_code = 3
    default_code = "damaged"

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code or self.default_code


class DicomError(DataError):
    """A DICOM file or series is refused."""

    default_code = "dicom"


class GeometryError(DataError):
    """Grids, shapes, spacings or orientations do not fit together."""

    default_code = "geometry"


class LabelError(DataError):
    """A label cannot be mapped to the classes asked for, or does not belong to the image."""

    default_code = "label"


class LeakageError(DataError):
    """A patient would be on both sides of a split."""


class PrivacyError(DataError):
    """Going on would expose patient data, or the pseudonym key is missing or readable by others."""


class SourceError(MonaiTLError):
    """A pretrained source cannot be read or used."""

    exit_code = 4


class WeightsError(SourceError):
    """Weights are damaged, unsafe, or do not fit the network."""


class ContractError(SourceError):
    """The source expects input that the target cannot give."""


class TrainingError(MonaiTLError):
    """Training cannot start or go on."""

    exit_code = 5


class DivergenceError(TrainingError):
    """The loss is no longer finite."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or read."""


class RankLostError(TrainingError):
    """Another of the processes that train one network together ended."""


class StageError(MonaiTLError):
    """A stage failed; names the stage and, where there is one, the pseudonymous case id."""

    exit_code = 6

    def __init__(self, stage: str, message: str, case_id: str | None = None) -> None:
        where = stage if case_id is None else f"{stage}, case {case_id}"
        super().__init__(f"{where}: {message}")
        self.stage = stage
        self.case_id = case_id


class WorkerLostError(MonaiTLError):
    """A process that worked over cases was ended by the system, or the cluster was lost."""

    exit_code = 6


class PromotionError(MonaiTLError):
    """The model of a run may not go out; says why, and nothing was changed."""

    exit_code = 7


class PacsError(MonaiTLError):
    """The PACS cannot be reached, refuses, or answers what makes no sense; studies stay where they are."""

    exit_code = 8


def describe_os_error(error: OSError) -> str:
    """What the system calls the fault. The error's own text may be a library's, and quote the input."""
    return os.strerror(error.errno) if error.errno else "input or output failed"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python says it by MemoryError, the system by ENOMEM, torch by words of a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def is_debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def describe_unexpected(error: BaseException) -> str:
    """Type and place of an error that nobody expected, without its text, which may hold anything: a patient's name too.

    Args:
        error: With the traceback it was caught with; one from another process has that process's as its cause.

    Returns:
        E.g. ``ValueError at monai_tl/dicom/volume.py:71``: the innermost line of this package, else the innermost line.
    """
    root = Path(__file__).parents[1]
    frames = [(Path(frame.filename), frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    # joblib sends the traceback of a worker as text; last, because it is the inner part
    remote = _FRAME.findall(str(error.__cause__)) if type(error.__cause__).__name__ == "_RemoteTraceback" else []
    ours = [(path, line) for path, line in frames + [(Path(name), int(line)) for name, line in remote]
            if Path(__file__).parent in path.parents]  # fmt: skip
    if ours:
        place = f"{ours[-1][0].relative_to(root).as_posix()}:{ours[-1][1]}"
    else:
        place = f"{frames[-1][0].name}:{frames[-1][1]}" if frames else "an unknown place"
    return f"{type(error).__name__} at {place}"


def reason_of_unexpected(error: Exception) -> str:
    """The reason given for a case that an unexpected error ended while the others go on.

    Raises:
        Exception: The error itself, when the user asked for tracebacks.
    """
    if is_debugging():
        raise error
    return (
        f"an unexpected {describe_unexpected(error)}; report this fault of monai_tl. "
        f"{DEBUG_VARIABLE}=1 stops there and shows the error's text, which may name the patient"
    )


def describe_fault(error: Exception) -> tuple[str, str]:
    """What went wrong with one case, so that it can be listed and the others go on.

    An error raised on purpose speaks for itself. The text of any other may quote the input, so only its type and place
    are given.

    Returns:
        Code and reason, for rejected.json and the like.

    Raises:
        Exception: ``error`` itself, where it is the machine's fault and no case's, or the user asked for tracebacks.
    """
    if isinstance(error, DataError):
        return error.code, str(error)
    if isinstance(error, MonaiTLError):
        return "failed", str(error)
    if is_out_of_memory(error):
        return "too_large", "the case does not fit in memory; use a machine with more"
    if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
        raise error
    return "failed", reason_of_unexpected(error)
