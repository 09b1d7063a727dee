"""Readers of files that others made, each fed bytes: all that may come out is a value or one of our errors.

As a program: ``python tests/support/fuzz_targets.py TARGET --seconds 600`` lets libFuzzer look for new ways through the
code where atheris is installed, else (or with ``--engine random``) changes whole files at random. It prints how many
inputs there were and what was found; each finding is kept under ``--findings``, and the exit status is then 1. ``all``
takes one reader after another, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

MAX_SECONDS = 10.0
"""Of processor time: a busy machine is no fault of an input."""
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
        is_text: Whether files are YAML or JSON, so that their values can be changed too, not only their bytes.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    is_text: bool = False


class TookTooLongError(BaseException):
    """An input used up its processor time; no Exception, so that no reader takes it for a fault of the file."""


def changed_for(name: str, content: bytes, source: random.Random) -> bytes:
    """A changed file of one reader: bytes of any, values of half of those that are text."""
    if TARGETS[name].is_text and source.random() < 0.5:
        return with_other_values(content, source)
    return changed(content, source)


_ANCHOR = re.compile(rb"[\s\[{,:-]&\w")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 3, 10**9, -(2**63), 10**40, 0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "0", "nan", "..", "/", "a/b", "x" * 5000, "\0", "\u202e"),
    *("$import os", "@network_def", "%configs/metadata.json#a", "1.0e999", "_target_", "os.system", "unet", "CT"),
    *([], [[]], {}, {"": {}}, [0], [1, 1, 1], [[1, 2], [3]], {"_target_": "print"}, {"name": 3}, [None, None]),
)


def with_other_values(content: bytes, source: random.Random) -> bytes:
    """Parts of text in YAML or JSON, some of their values replaced, left out, repeated or put elsewhere."""
    # not at the top: libFuzzer sees only what is imported later; and the parser in C, which is no part of the product
    import yaml

    parts = content.split(_SPLIT)
    number = source.randrange(len(parts))
    try:
        tree = yaml.load(parts[number].decode(), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return changed(content, source)
    if _ANCHOR.search(parts[number]) or not isinstance(tree, (dict, list)):
        # an alias may stand for more than there is memory
        return changed(content, source)
    for _ in range(source.choice((1, 1, 2, 4))):
        places = list(islice(_places(tree), 5000))
        if places:
            # JSON has no aliases, and would write them out
            _change_place(*source.choice(places), places, source, with_aliases=len(parts) == 1)
    try:
        if len(parts) > 1:
            text = json.dumps(tree, default=str)
        else:
            text = yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):
        return changed(content, source)
    parts[number] = text.encode("utf-8", "replace")
    return _SPLIT.join(parts)


def _change_place(
    holder: Any, key: Any, places: list[tuple[Any, Any]], source: random.Random, *, with_aliases: bool
) -> None:
    kind = source.randrange(7 if with_aliases else 6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, other_key = source.choice(places)
        holder[key] = deepcopy(other[other_key])
    elif kind == 2 and isinstance(holder, dict):
        holder[source.choice(("", "_target_", "name", 3, "x" * 300))] = holder.pop(key)
    elif kind == 3 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * source.choice((1, 3, 300))
    elif kind == 6:
        # one object at many places is written as an alias
        for _ in range(source.choice((2, 4, 12))):
            holder[key] = [holder[key]] * 9
    else:
        holder[key] = source.choice(_VALUES)


def _places(tree: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth > 20 or not isinstance(tree, (dict, list)):
        return
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        yield from _places(tree[key], depth + 1)


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
    from monai_tl.networks.builders import build_network
    from monai_tl.sources.card import read_source

    (folder / "card.yaml").write_bytes(content)
    (folder / "weights.safetensors").write_bytes(b"")
    network = read_source(folder).card.network
    # as far as the network's shapes: that weights are missing is found only behind them
    return build_network(network.config, network.n_channels, network.n_outputs, seed=0, weightless=True)


def _params_seeds() -> list[bytes]:
    return [(Path(__file__).parents[2] / "params.yaml").read_bytes()]


def _read_params(content: bytes, folder: Path) -> object:
    from monai_tl.config import load_params

    (folder / "params.yaml").write_bytes(content)
    return load_params(folder)


@cache
def _bundle_texts() -> tuple[bytes, bytes]:
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
    "card": Target(_card_seeds, _read_card, is_text=True),
    "params": Target(_params_seeds, _read_params, is_text=True),
    "bundle": Target(_bundle_seeds, _read_bundle, is_text=True),
    "weights": Target(_weights_seeds, _read_weights),
}


def kept(name: str) -> list[bytes]:
    """Inputs that were findings once."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def outcome(name: str, content: bytes, scratch: Path) -> str:
    """``read``, or the name of our error.

    Raises:
        TookTooLongError: It took more processor time than an input may.
        AssertionError: It took too much memory.
        Exception: Any that is not ours: a finding.
    """
    from monai_tl.errors import MonaiTLError

    before = _peak_mib()
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _limited_time():
        try:
            TARGETS[name].read(content, Path(folder))
            found = "read"
        except MonaiTLError as error:
            found = type(error).__name__
    assert _peak_mib() - before < MAX_GROWTH_MIB, f"{_peak_mib() - before} MiB"
    return found


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    """Stop what is done after ``MAX_SECONDS`` of processor time, an endless loop too."""

    def stop(number: int, frame: object) -> None:
        raise TookTooLongError(f"more than {MAX_SECONDS:g} s of processor time")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


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
        except (Exception, TookTooLongError) as error:
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
            f"{self.name} ({engine}): {self.n_inputs} inputs in {seconds:.0f} s, {time.process_time():.0f} of a core; "
            f"outcomes {dict(sorted(self.outcomes.items()))}; findings {self.places}"
        )


def run_random(session: Session, seconds: float, seed: int) -> None:
    """Change the seeds, and what came of them, until the time is up."""
    source = random.Random(seed)
    whole = TARGETS[session.name].seeds()
    seeds = [*whole, *kept(session.name)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session(changed_for(session.name, source.choice(source.choice((whole, seeds))), source))


def run_atheris(session: Session, seconds: float, seed: int, report: Callable[[], None]) -> None:
    """Let libFuzzer choose; it ends the process, so the report is given by its last input."""
    import atheris

    whole = TARGETS[session.name].seeds()
    with tempfile.TemporaryDirectory() as corpus:
        for k, content in enumerate([*whole, *kept(session.name)]):
            (Path(corpus) / f"{k}").write_bytes(content)
        end = time.monotonic() + seconds

        def one(content: bytes) -> None:
            session(content)
            if time.monotonic() > end:
                report()
                for folder in (corpus, session.scratch):
                    shutil.rmtree(folder, ignore_errors=True)
                os._exit(1 if session.places else 0)

        def custom(content: bytes, max_size: int, number: int) -> bytes:
            source = random.Random(number)
            if number % 4 == 1:
                # few changes to what is read: many to what is refused only find one more reason to refuse it
                content = source.choice(whole)
            if number % 2:
                return changed_for(session.name, content, source)[:max_size]
            return bytes(atheris.Mutate(content, len(content)))

        # libFuzzer's limit is of time on the clock
        options = [f"-seed={seed}", "-max_len=65536", "-rss_limit_mb=6000", "-timeout=600", "-verbosity=0"]
        atheris.Setup([sys.argv[0], corpus, *options], one, custom_mutator=custom)
        atheris.Fuzz()


def _warm_up(session: Session) -> None:
    """Import all that is needed, which takes longer than an input may."""
    with tempfile.TemporaryDirectory(dir=session.scratch) as folder:
        for content in TARGETS[session.name].seeds():
            with contextlib.suppress(Exception):
                TARGETS[session.name].read(content, Path(folder))


def run_all(arguments: list[str]) -> int:
    """Each reader in a process of its own: an engine that ends it ends one, and memory is counted anew."""
    codes = {}
    for name in TARGETS:
        command = [sys.executable, str(Path(__file__)), name, *arguments]
        codes[name] = subprocess.run(command, check=False).returncode
    if failed := [name for name, code in codes.items() if code]:
        print(f"findings, or an end that was none of the engine's: {', '.join(failed)}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    default = "atheris" if importlib.util.find_spec("atheris") else "random"
    parser.add_argument("--engine", choices=("random", "atheris"), default=default)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    if given.target == "all":
        return run_all(sys.argv[2:])
    warnings.simplefilter("ignore")
    os.environ["MONAI_TL_EXECUTOR"] = "sequential"
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        session = Session(given.target, given.findings, Path(scratch))
        began = time.monotonic()

        def report() -> None:
            print(session.told(time.monotonic() - began, given.engine), flush=True)

        if given.engine == "atheris":
            import atheris

            # it tells of each module
            with (
                contextlib.redirect_stderr(io.StringIO()),
                atheris.instrument_imports(
                    include=["monai_tl", "pydicom", "yaml", "nibabel"], enable_loader_override=False
                ),
            ):
                _warm_up(session)
            run_atheris(session, given.seconds, given.seed, report)
        else:
            _warm_up(session)
            run_random(session, given.seconds, given.seed)
            report()
    return 1 if session.places else 0


if __name__ == "__main__":
    sys.exit(main())
