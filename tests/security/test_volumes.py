"""Row 3: volumes that claim, unpack or place more than they hold are refused, with the case named and memory kept.

Single damages of a header, NaN and infinite values and messages are tested in tests/unit/test_nifti.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from isal import isal_zlib

from monai_tl.dataset.nifti import read_image, read_label, write_image
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import MonaiTLError
from monai_tl.records import RejectionList

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
MAX_GROWTH_KIB = 200 << 10
PARAMS = {
    "plan": {"source": None, "network": {"name": "unet", "arguments": {}}, "spacing_mm": [1.0, 1.0, 1.0]},
    "finetune": {"arms": ["scratch"]},
}


def _whole(path: Path) -> Path:
    rng = np.random.default_rng(0)
    write_image(path, rng.integers(0, 2, (12, 14, 16)).astype(np.uint8), AFFINE)
    return path


def _header(shape: tuple[int, ...], kind: type = nibabel.Nifti1Header, **fields: object) -> bytes:
    header = kind()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_sform(AFFINE, code=1)
    header["vox_offset"] = 352 if kind is nibabel.Nifti1Header else 544
    header["magic"] = b"n+1" if kind is nibabel.Nifti1Header else b"n+2"
    for key, value in fields.items():
        header[key] = value
    return bytes(header.binaryblock) + b"\0\0\0\0"


def _packed(head: bytes, n_zeros: int) -> bytes:
    packer = isal_zlib.compressobj(level=1, wbits=31)
    parts = [packer.compress(head)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(n_zeros >> 20)]
    parts += [packer.compress(bytes(n_zeros % (1 << 20))), packer.flush()]
    return b"".join(parts)


def _bomb(folder: Path) -> Path:
    """One gigabyte in two hundredths of a percent, as its own header truly says."""
    path = folder / "a.nii.gz"
    path.write_bytes(_packed(_header((1000, 1000, 1000)), 10**9))
    assert path.stat().st_size < 6 << 20
    return path


def _bomb_behind_a_small_header(folder: Path) -> Path:
    path = folder / "a.nii.gz"
    path.write_bytes(_packed(_header((10, 10, 10)), 10**9))
    return path


def _claim(shape: tuple[int, ...], kind: type = nibabel.Nifti1Header, ending: str = ".nii") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"a{ending}"
        content = _header(shape, kind) + b"\0" * 100
        path.write_bytes(_packed(content, 0) if ending == ".nii.gz" else content)
        return path

    return make


def _sparse(shape: tuple[int, ...], n_bytes: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = _claim(shape)(folder)
        os.truncate(path, n_bytes)
        return path

    return make


def _flipped(folder: Path) -> Path:
    path = _whole(folder / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def _without_trailer(folder: Path) -> Path:
    path = _whole(folder / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-8])
    return path


def _wrong_checksum(folder: Path) -> Path:
    path = _whole(folder / "a.nii.gz")
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(4) + content[-4:])
    return path


def _changed(**fields: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = _whole(folder / "a.nii")
        content = path.read_bytes()
        path.write_bytes(_header((12, 14, 16), **fields) + content[352:])
        return path

    return make


VOLUMES = {
    "30000^3": (_claim((30000, 30000, 30000)), "claims 27000000000352 bytes"),
    "30000^3 in gzip": (_claim((30000, 30000, 30000), ending=".nii.gz"), "claims 27000000000352 bytes"),
    "100000^3 in NIfTI-2": (_claim((100000, 100000, 100000), nibabel.Nifti2Header), "claims 1000000000000544 bytes"),
    "30000^3 in a gigabyte": (_sparse((30000, 30000, 30000), 1 << 30), "claims 27000000000352 bytes"),
    "gigabyte behind a volume": (
        _sparse((10, 10, 10), 1 << 30),
        "1073741824 bytes where its header says 1352",
    ),
    "gigabyte of zeros": (_bomb, "more than any scan shrinks"),
    "gigabyte behind a small header": (_bomb_behind_a_small_header, "unpacks to more than its header says"),
    "one bit": (_flipped, "checksum"),
    "no trailer": (_without_trailer, "checksum"),
    "wrong checksum": (_wrong_checksum, "checksum"),
    "NaN in the affine": (_changed(srow_y=[0, np.nan, 0, 0]), "affine"),
    "singular affine": (_changed(srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0]), "affine is singular"),
    "voxels without size": (_changed(srow_y=[0, 0, 0, 5]), "voxel size"),
    "infinite slope": (_changed(scl_slope=np.inf), "scale factor"),
    "infinite intercept": (_changed(scl_slope=1.0, scl_inter=-np.inf), "scale factor"),
}


def _peak_kib(reset: bool) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", VOLUMES)
def test_it_is_refused_within_the_memory_of_its_file(tmp_path: Path, name: str) -> None:
    make, words = VOLUMES[name]
    path = make(tmp_path)
    before = _peak_kib(reset=True)
    with pytest.raises(MonaiTLError, match=words):
        read_image(path)
    with pytest.raises(MonaiTLError):
        # a label map may shrink further, but it cannot be larger than its image
        read_label(path, (12, 14, 16))
    assert _peak_kib(reset=False) - before < MAX_GROWTH_KIB


def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "device.nii").symlink_to("/dev/zero")
    (tmp_path / "folder.nii").mkdir()
    # in a process of its own, which can be ended, with 4 GiB
    program = """
import resource, sys
from pathlib import Path
from monai_tl.dataset.nifti import read_image
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for path in sys.argv[1:]:
    try:
        read_image(Path(path))
    except Exception as error:
        print(type(error).__name__, error)
"""
    arguments = [sys.executable, "-c", program, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "DataError the image file is a folder, a pipe or a device; give the file itself\n" * 3


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    """DVC makes them, with cache.type symlink."""
    link = tmp_path / "b.nii.gz"
    link.symlink_to(_whole(tmp_path / "a.nii.gz"))
    assert np.array_equal(read_image(link)[0], read_image(tmp_path / "a.nii.gz")[0])


def _members(content: bytes, n_bytes: int) -> list[bytes]:
    """As pigz and bgzip write them."""
    return [_packed(content[start : start + n_bytes], 0) for start in range(0, len(content), n_bytes)]


def test_empty_gzip_members_take_time_in_step_with_their_number(tmp_path: Path) -> None:
    """Twenty bytes each; to copy what is left for each of them takes ten seconds for these 4 MB."""
    first, *others = _members(_whole(tmp_path / "a.nii").read_bytes(), 512)
    empty = zlib.compressobj(wbits=31).flush()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(first + empty * (4_000_000 // len(empty)) + b"".join(others))
    started = time.process_time()
    assert np.array_equal(read_image(path)[0], read_image(tmp_path / "a.nii")[0])
    assert time.process_time() - started < 4


@pytest.mark.parametrize("n_bytes", [700, 4096, 65280])
def test_files_of_many_members_are_read(tmp_path: Path, n_bytes: int) -> None:
    rng = np.random.default_rng(0)
    write_image(tmp_path / "a.nii", rng.integers(0, 4000, (80, 80, 40)).astype(np.int16), AFFINE)
    content = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "a.nii.gz"
    members = _members(content, n_bytes)
    # bgzip ends a file with an empty one
    path.write_bytes(b"".join(members) + zlib.compressobj(wbits=31).flush())
    assert np.array_equal(read_image(path)[0], read_image(tmp_path / "a.nii")[0])
    path.write_bytes(b"".join(members[:-1]))
    with pytest.raises(MonaiTLError, match=rf"ends after {(len(members) - 1) * n_bytes} of {len(content)} bytes"):
        read_image(path)
    whole = b"".join(members)
    for cut in (1, 9, len(members[-1]) - 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(MonaiTLError, match="checksum"):
            read_image(path)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_label_larger_than_its_image_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(_packed(_header((800, 800, 700)), 800 * 800 * 700))
    before = _peak_kib(reset=True)
    with pytest.raises(MonaiTLError, match="resample it onto its image"):
        read_label(path, (80, 80, 70))
    assert _peak_kib(reset=False) - before < MAX_GROWTH_KIB


def test_what_was_changed_is_read_before_it_is_changed(tmp_path: Path) -> None:
    """Else the refusals above would show nothing."""
    for path in (_whole(tmp_path / "a.nii"), _whole(tmp_path / "a.nii.gz"), _changed()(tmp_path)):
        assert read_image(path)[0].shape == (12, 14, 16)
        assert read_label(path, (16, 14, 12))[0].shape == (12, 14, 16)


def test_a_large_label_of_a_small_organ_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(_packed(_header((512, 512, 300)), 512 * 512 * 300))
    assert read_label(path, (512, 512, 300))[0].max() == 0


@pytest.mark.parametrize("name", ["30000^3", "gigabyte of zeros", "no trailer", "NaN in the affine", "infinite slope"])
def test_the_stage_goes_on_and_names_the_case(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_tl.config import Params
    from monai_tl.dataset.manifest import read_manifest
    from monai_tl.stages import ingest

    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    data = tmp_path / "data"
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True)
    bad = VOLUMES[name][0](tmp_path)
    endings = {"good": ".nii.gz", "bad": "".join(bad.suffixes)}
    listed = []
    for case, ending in endings.items():
        image = data / "imagesTr" / f"{case}{ending}"
        shutil.copyfile(bad, image) if case == "bad" else _whole(image)
        _whole(data / "labelsTr" / f"{case}.nii.gz")
        listed.append({"image": f"./imagesTr/{image.name}", "label": f"./labelsTr/{case}.nii.gz"})
    facts = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": listed}
    (data / "dataset.json").write_text(json.dumps({"name": "t", "tensorImageSize": "3D", "test": [], **facts}))
    create_key(tmp_path / "secret.key", seed=0)
    source = {"source": "data", "key_file": str(tmp_path / "secret.key"), "classes": [{"name": "liver"}]}
    ingest.run(tmp_path, Params.model_validate({"ingest": source, **PARAMS}))
    assert len(read_manifest(tmp_path / "artifacts/cases").cases) == 1
    (refused,) = RejectionList.read(tmp_path / "artifacts/cases/rejected.json").rejected
    assert refused.kind == "case"
    assert refused.item != "bad"
    assert "the image file" in refused.reason
