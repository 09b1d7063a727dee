"""Files whole or absent; the case cache never hands out damaged or shared files."""

import os
import signal
import subprocess
import sys
import time

import pytest

from monai_tl.cache import CaseCache
from monai_tl.files import read_json, sha256_of, sweep_abandoned, to_json, whole_folder, write_bytes, write_json


def test_a_writer_killed_at_any_moment_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "state.bin"
    program = (
        "import sys; from pathlib import Path; from monai_tl.files import write_bytes\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    write_bytes(Path(sys.argv[1]), bytes([n % 251]) * 3_000_000)\n"
    )
    for delay in (0.02, 0.05, 0.11):
        child = subprocess.Popen([sys.executable, "-c", program, str(target)])
        limit = time.monotonic() + 20
        while not target.exists() and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        content = target.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    program = (
        "import sys; from pathlib import Path; from monai_tl.files import write_chunks\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.readline()\n"
        "write_chunks(Path(sys.argv[1]), chunks())\n"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "state.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, **pipes) as child:
        assert child.stdout.readline() == "begun\n"
        (half,) = tmp_path.iterdir()
        sweep_abandoned(tmp_path, "state.json")
        assert half.is_file()
        child.communicate("go on\n")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    with subprocess.Popen(line, **pipes) as child:
        assert child.stdout.readline() == "begun\n"
        child.kill()
    assert len(list(tmp_path.iterdir())) == 2
    sweep_abandoned(tmp_path, "other.json")
    assert len(list(tmp_path.iterdir())) == 2
    sweep_abandoned(tmp_path, "state.json")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert (tmp_path / "state.json").read_bytes() == b"half"


def test_a_failed_writer_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "x", "text")
    assert list(tmp_path.iterdir()) == []


def test_whole_folder_replaces_only_on_success(tmp_path):
    target = tmp_path / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("1")

    def stop_half_way():
        with whole_folder(target) as folder:
            (folder / "b").write_text("2")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with whole_folder(target) as folder:
        (folder / "c").write_text("3")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_json_is_canonical_and_refuses_nan(tmp_path):
    assert to_json({"b": 1, "a": "ä"}) == to_json({"a": "ä", "b": 1})
    write_json(tmp_path / "x.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_digest_sees_boundaries():
    assert sha256_of("ab", "c") != sha256_of("a", "bc")


def test_cache_returns_copies_and_rebuilds_damaged_entries(tmp_path):
    cache = CaseCache(tmp_path / "cache")
    built = []

    def build(folder):
        built.append(1)
        (folder / "value").write_text("right")

    assert cache.fetch("k" * 64, tmp_path / "one", build) is False
    assert cache.fetch("k" * 64, tmp_path / "two", build) is True
    (tmp_path / "two" / "value").write_text("edited in place")
    assert cache.fetch("k" * 64, tmp_path / "three", build) is True
    assert (tmp_path / "three" / "value").read_text() == "right"
    assert len(built) == 1
    entry = next((tmp_path / "cache").rglob("value"))
    entry.write_text("rotten")
    assert cache.fetch("k" * 64, tmp_path / "four", build) is False
    assert (tmp_path / "four" / "value").read_text() == "right"
    assert sorted(path.name for path in (tmp_path / "four").iterdir()) == ["value"]


def test_a_failed_build_is_not_remembered(tmp_path):
    cache = CaseCache(tmp_path / "cache")

    def fail(folder):
        (folder / "half").write_text("x")
        raise ValueError("bad case")

    with pytest.raises(ValueError, match="bad case"):
        cache.fetch("k" * 64, tmp_path / "one", fail)
    assert not (tmp_path / "one").exists()
    assert not list((tmp_path / "cache").rglob("half"))
