"""Readers of files that others made, each fed bytes: all that may come out is a value or one of our errors.

As a program: ``python tests/support/fuzz_targets.py TARGET --seconds 600`` changes whole files at random, or with
``--engine atheris`` lets libFuzzer look for new ways through the code. It prints how many inputs there were and what
was found; each finding is kept under ``--findings``.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_SECONDS = 10.0
MAX_GROWTH_MIB = 512
CORPUS = Path(__file__).parents[1] / "security" / "corpus"
_TOKENS = (
    *(b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff", b"\x80", b"nan", b"inf", b"-1", b"1e309", b"9" * 40),
    *(b"$", b"@", b"%", b"_target_", b"../", b"\x00", b"&a *a", b"!!python/object/apply:os.system", b"{", b"[", b": "),
    *(b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ", b"UN", b"OW", b"\\", b"^"),
)


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        seeds: Whole files it reads.
        read: Reads bytes by way of a file in a folder.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]


def changed(content: bytes, source: random.Random) -> bytes:
    """The bytes with a few changes: bits, pieces left out or repeated, words that mean something to a parser."""
    result = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        place = source.randrange(len(result) + 1)
        end = min(len(result), place + source.choice((1, 2, 4, 8, 64, 1024)))
        kind = source.randrange(6)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            del result[place:end]
        elif kind == 2:
            result[place:place] = result[place:end]
        elif kind == 3:
            token = source.choice(_TOKENS)
            result[place : place + len(token)] = token
        elif kind == 4:
            result[place:place] = source.choice(_TOKENS)
        else:
            result[place:end] = source.randbytes(end - place)
    return bytes(result)


def _dicom_series() -> object:
    import numpy as np
    from dicom_bytes import new_series

    return new_series(np.random.default_rng(3), n_slices=4, rows=8, columns=8)


@cache
def _geometry() -> object:
    from dicom_bytes import write_series

    from monai_tl.dicom.index import index_folder
    from monai_tl.dicom.volume import read_volume

    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), _dicom_series().slices)
        return read_volume(index_folder(Path(folder), _hasher()).series[0]).geometry


@cache
def _hasher() -> object:
    from monai_tl.dicom.deidentify import Pseudonyms

    return Pseudonyms(bytes(range(64)))


@cache
def _scheme() -> object:
    from monai_tl.labels import ClassSpec, LabelScheme

    return LabelScheme(classes=(ClassSpec(name="GTV"),))


def _dicom_seeds() -> list[bytes]:
    from damaged_files import deflate
    from dicom_bytes import DEFLATED, IMPLICIT, body, file_bytes, meta

    one = _dicom_series().slices[0]
    deflated = meta(one, DEFLATED) + deflate(body(one))
    plain = {tag: value for tag, value in one.items() if value[0] != "SQ"}
    return [file_bytes(one), file_bytes(plain, IMPLICIT), deflated]


def _read_dicom(content: bytes, folder: Path) -> object:
    from monai_tl.dicom.index import index_folder
    from monai_tl.dicom.volume import read_volume

    (folder / "a.dcm").write_bytes(content)
    index = index_folder(folder, _hasher())
    return [read_volume(series) for series in index.series]


def _rtstruct_seeds() -> list[bytes]:
    from dicom_bytes import file_bytes, rtstruct

    return [file_bytes(rtstruct(_dicom_series()))]


def _read_rtstruct(content: bytes, folder: Path) -> object:
    from monai_tl.dicom.rtstruct import read_rtstruct, rtstruct_structures

    path = folder / "a.dcm"
    path.write_bytes(content)
    rtstruct_structures(path)
    return read_rtstruct(path, _geometry(), _scheme())


def _seg_seeds() -> list[bytes]:
    from dicom_bytes import file_bytes, segmentation

    return [file_bytes(segmentation(_dicom_series()))]


def _read_seg(content: bytes, folder: Path) -> object:
    from monai_tl.dicom.segmentation_reading import read_segmentation, seg_structures

    path = folder / "a.dcm"
    path.write_bytes(content)
    seg_structures(path)
    return read_segmentation(path, _geometry(), _scheme())


def _nifti_seeds() -> list[bytes]:
    import numpy as np

    from monai_tl.dataset.nifti import write_image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        write_image(path, np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
        whole = path.read_bytes()
    return [whole, gzip.compress(whole, 1), gzip.compress(whole[:400]) + gzip.compress(whole[400:])]


def _read_nifti(content: bytes, folder: Path) -> object:
    from monai_tl.dataset.nifti import read_image, read_label
    from monai_tl.errors import MonaiTLError

    # the checksum would refuse nearly all: packed anew, what is within is tried as well
    path = folder / "a.nii"
    path.write_bytes(content)
    try:
        return read_image(path)
    except MonaiTLError:
        return read_label(path)


def _card_seeds() -> list[bytes]:
    return [(Path(__file__).parents[2] / "sources" / "abdomen_a" / "card.yaml").read_bytes()]


def _read_card(content: bytes, folder: Path) -> object:
    from monai_tl.sources.card import read_source

    (folder / "card.yaml").write_bytes(content)
    (folder / "weights.safetensors").write_bytes(b"")
    return read_source(folder)


def _params_seeds() -> list[bytes]:
    return [(Path(__file__).parents[2] / "params.yaml").read_bytes()]


def _read_params(content: bytes, folder: Path) -> object:
    from monai_tl.config import load_params

    (folder / "params.yaml").write_bytes(content)
    return load_params(folder)


@cache
def _bundle_texts() -> tuple[bytes, bytes]:
    import json

    from zoo_bundles import ct_steps, inference, metadata

    config = json.dumps(inference("UNet", 1, 2, ct_steps()), indent=1).encode()
    return config, json.dumps(metadata(["image"], ["background", "spleen"]), indent=1).encode()


_SPLIT = b"\n=====\n"


def _bundle_seeds() -> list[bytes]:
    return [_SPLIT.join(_bundle_texts())]


def _read_bundle(content: bytes, folder: Path) -> object:
    from monai_tl.sources.card import read_source

    config, _, facts = content.partition(_SPLIT)
    for name, text in (("configs/inference.json", config), ("configs/metadata.json", facts or _bundle_texts()[1])):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "model.pt").write_bytes(b"PK")
    return read_source(folder)


def _weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    tensors = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "conv.bias": torch.ones(2)}
    made = [save(tensors)]
    for new in (True, False):
        stream = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 3}, stream, _use_new_zipfile_serialization=new)
        made.append(stream.getvalue())
    return made


def _read_weights(content: bytes, folder: Path) -> object:
    from monai_tl.sources.weights import parse_state

    return parse_state(content, folder / "a.pt", None)


TARGETS = {
    "dicom_index": Target(_dicom_seeds, _read_dicom),
    "rtstruct": Target(_rtstruct_seeds, _read_rtstruct),
    "seg": Target(_seg_seeds, _read_seg),
    "nifti": Target(_nifti_seeds, _read_nifti),
    "card": Target(_card_seeds, _read_card),
    "params": Target(_params_seeds, _read_params),
    "bundle": Target(_bundle_seeds, _read_bundle),
    "weights": Target(_weights_seeds, _read_weights),
}


def kept(name: str) -> list[bytes]:
    """Inputs that were findings once."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def outcome(name: str, content: bytes, scratch: Path) -> str:
    """``read``, or the name of our error.

    Raises:
        AssertionError: It took too long or too much memory.
        Exception: Any that is not ours: a finding.
    """
    from monai_tl.errors import MonaiTLError

    before, began = _peak_mib(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            TARGETS[name].read(content, Path(folder))
            found = "read"
        except MonaiTLError as error:
            found = type(error).__name__
    assert time.monotonic() - began < MAX_SECONDS, f"{time.monotonic() - began:.0f} s"
    assert _peak_mib() - before < MAX_GROWTH_MIB, f"{_peak_mib() - before} MiB"
    return found


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Session:
    """Counts inputs and keeps findings, one for each place in the code."""

    def __init__(self, name: str, findings: Path, scratch: Path) -> None:
        self.name, self.folder, self.scratch = name, findings, scratch
        self.n_inputs, self.places, self.outcomes = 0, {}, {}

    def __call__(self, content: bytes) -> None:
        self.n_inputs += 1
        try:
            found = outcome(self.name, content, self.scratch)
            self.outcomes[found] = self.outcomes.get(found, 0) + 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in last if "monai_tl" in frame.filename] or last
            place = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
            if place not in self.places:
                self.folder.mkdir(parents=True, exist_ok=True)
                kept_as = self.folder / f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"
                kept_as.write_bytes(content)
                kept_as.with_suffix(".txt").write_text(traceback.format_exc())
            self.places[place] = self.places.get(place, 0) + 1

    def told(self, seconds: float, engine: str) -> str:
        return (
            f"{self.name} ({engine}): {self.n_inputs} inputs in {seconds:.0f} s; "
            f"outcomes {dict(sorted(self.outcomes.items()))}; findings {self.places}"
        )


def run_random(session: Session, seconds: float, seed: int) -> None:
    """Change the seeds, and what came of them, until the time is up."""
    source = random.Random(seed)
    seeds = [*TARGETS[session.name].seeds(), *kept(session.name)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session(changed(source.choice(seeds), source))


def run_atheris(session: Session, seconds: float, seed: int, report: Callable[[], None]) -> None:
    """Let libFuzzer choose; it ends the process, so the report is given by its last input."""
    import atheris

    with tempfile.TemporaryDirectory() as corpus:
        for k, content in enumerate([*TARGETS[session.name].seeds(), *kept(session.name)]):
            (Path(corpus) / f"{k}").write_bytes(content)
        end = time.monotonic() + seconds

        def one(content: bytes) -> None:
            session(content)
            if time.monotonic() > end:
                report()
                os._exit(0)

        def custom(content: bytes, max_size: int, number: int) -> bytes:
            mutated = changed(content, random.Random(number)) if number % 2 else atheris.Mutate(content, len(content))
            return mutated[:max_size]

        options = [f"-seed={seed}", "-max_len=65536", "-rss_limit_mb=6000", "-timeout=60", "-verbosity=0"]
        atheris.Setup([sys.argv[0], corpus, *options], one, custom_mutator=custom)
        atheris.Fuzz()


def _warm_up(session: Session) -> None:
    """Import all that is needed, which takes longer than an input may."""
    with tempfile.TemporaryDirectory(dir=session.scratch) as folder:
        for content in TARGETS[session.name].seeds():
            with contextlib.suppress(Exception):
                TARGETS[session.name].read(content, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["MONAI_TL_EXECUTOR"] = "sequential"
    memory = Path("/dev/shm")
    scratch = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    session = Session(given.target, given.findings, Path(scratch))
    began = time.monotonic()

    def report() -> None:
        print(session.told(time.monotonic() - began, given.engine), flush=True)

    if given.engine == "atheris":
        import atheris

        with atheris.instrument_imports(
            include=["monai_tl", "pydicom", "yaml", "nibabel"], enable_loader_override=False
        ):
            _warm_up(session)
        run_atheris(session, given.seconds, given.seed, report)
    else:
        _warm_up(session)
        run_random(session, given.seconds, given.seed)
        report()


if __name__ == "__main__":
    main()
