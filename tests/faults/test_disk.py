"""Row 9: a disk that is full, files that may not grow, and folders that belong to another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# each way in turn: an old file, then one that does not fit over it; then a whole folder, then a case for the cache
_FILL = """
import errno, json, os, resource, signal, sys
from pathlib import Path
import numpy as np
from monai_tl.cache import CaseCache
from monai_tl.dataset.nifti import read_image, write_image
from monai_tl.errors import describe_fault
from monai_tl.files import whole_folder

root, limit = Path(sys.argv[1]), sys.argv[2]
if limit == "files":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
small, large = np.ones((4, 4, 4), np.float32), np.random.default_rng(0).random((128, 128, 64), dtype=np.float32)
write_image(root / "a.nii", small, np.eye(4))


def in_folder():
    with whole_folder(root / "whole") as folder:
        write_image(folder / "b.nii", large, np.eye(4))


def in_cache():
    build = lambda folder: write_image(folder / "b.nii", large, np.eye(4))
    CaseCache(root / "cache").fetch("k" * 64, root / "case", build)


found = []
for work in (lambda: write_image(root / "a.nii", large, np.eye(4)), in_folder, in_cache):
    try:
        work()
        found.append("written")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
        try:
            describe_fault(error)
            found.append("taken for the case's fault")
        except OSError:
            pass
kept = read_image(root / "a.nii")[0].shape
left = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
print(json.dumps([found, kept, left]))
"""


def _namespace() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k t /mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("limit", "error"), [("disk", "ENOSPC"), ("files", "EFBIG")])
def test_the_last_good_file_stays_and_nothing_half_written(tmp_path: Path, limit: str, error: str) -> None:
    command = [sys.executable, "-c", _FILL, str(tmp_path), limit]
    if limit == "disk":
        if not _namespace():
            pytest.skip("no user namespaces here")
        # the mount is seen by these processes alone
        words = " ".join(f"'{word}'" for word in (sys.executable, "-c"))
        script = f'mount -t tmpfs -o size=2m t "$1" && exec {words} "$2" "$1" disk'
        command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), _FILL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == f'[["{error}", "{error}", "{error}"], [4, 4, 4], ["a.nii"]]', done.stderr[-2000:]


@pytest.fixture
def workspace_of_root() -> Iterator[Path]:
    # not tmp_path, which another user may not enter
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "artifacts").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes another user, as root may")
def test_a_folder_of_another_user_is_a_message(workspace_of_root: Path) -> None:
    """Mode 0555 would not hold root back."""
    program = (
        "import sys\nfrom monai_tl import cli, stages\nfrom monai_tl.files import whole_folder\n"
        "def work(name, workspace, params, matrix):\n"
        "    with whole_folder(workspace / 'artifacts/split'):\n        pass\n"
        "stages.run_stage = work\n"
        "sys.argv = ['monai-tl', 'stage', 'split', '-w', sys.argv[1]]\ncli.main()\n"
    )
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*other, sys.executable, "-B", "-c", program, str(workspace_of_root)]
    environment = {**os.environ, "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60)
    if "ModuleNotFoundError" in done.stderr or "Permission denied:" in done.stderr:
        pytest.skip("the other user may not read the package")
    assert done.returncode == 6, done.stderr
    assert "Permission denied; check disk space and permissions" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert list((workspace_of_root / "artifacts").iterdir()) == []
