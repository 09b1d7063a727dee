"""Files of folders and zip files: nothing outside is read, nothing inflates without measure, nothing is written."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_tl.errors import SourceError
from monai_tl.sources.packed_files import MAX_TEXT, FolderFiles, open_zip


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Path) -> Iterator[None]:
    yield
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} <= {".zip", ".txt"}


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return path


def _link(name: str, mode: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    return info


@pytest.mark.parametrize("wrapping", ["", "spleen/"])
def test_members_are_read_with_or_without_a_folder_around_them(tmp_path: Path, wrapping: str) -> None:
    path = _zip(tmp_path / "a.zip", (f"{wrapping}configs/b.json", b"b"), (f"{wrapping}models/c.pt", b"c"))
    files = open_zip(path)
    assert files.names() == ("configs/b.json", "models/c.pt")
    assert files.read("models/c.pt") == b"c"
    assert files.has("configs/b.json")
    assert not files.has("b.json")


def test_a_zip_of_one_folder_of_the_bundle_is_not_unwrapped(tmp_path: Path) -> None:
    assert open_zip(_zip(tmp_path / "a.zip", ("configs/b.json", b"b"))).names() == ("configs/b.json",)


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "a\\..\\out.txt", "C:/out.txt", "a/..", ".."]
)
def test_members_that_would_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="outside its folder"):
        open_zip(_zip(tmp_path / "a.zip", ("configs/b.json", b"b"), (name, b"x")))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SourceError, match="link or a device"):
        open_zip(_zip(tmp_path / "a.zip", (_link("models/model.pt", mode), b"/etc/passwd")))


def test_a_member_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = _zip(tmp_path / "a.zip", ("b", b"1"), ("b", b"2"))
    with pytest.raises(SourceError, match="twice"):
        open_zip(path)


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", ("models/model.pt", bytes(64 << 20)))
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceError, match="would inflate"):
        open_zip(path)


def test_large_members_may_not_shrink_as_text_does(tmp_path: Path) -> None:
    """Up to the ratio of text, six megabytes would become a gigabyte in memory before a hash is looked at."""
    fresh = os.urandom(1 << 20)
    path = _zip(tmp_path / "a.zip", ("models/model.pt", (fresh + bytes(4 << 20)) * 14))
    with pytest.raises(SourceError, match=r"'models/model.pt' would inflate from 1\d{7} to 73400320 bytes"):
        open_zip(path)
    # as far as weights of float32 with empty halves do
    half = (fresh + bytes(1 << 20)) * 33
    assert open_zip(_zip(tmp_path / "b.zip", ("models/model.pt", half))).read("models/model.pt", 1 << 30) == half


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A bomb whose many members all point to the same packed bytes: each alone looks harmless."""
    path = _zip(tmp_path / "a.zip", *((f"m{i}", os.urandom(1000) if i == 0 else b"") for i in range(50)))
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\x01\x02")
    packed, size = struct.unpack_from("<II", content, first + 20)
    at = first
    while (at := content.find(b"PK\x01\x02", at + 4)) != -1:
        struct.pack_into("<II", content, at + 20, packed, size)
        struct.pack_into("<I", content, at + 42, 0)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="without measure"):
        open_zip(path)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="members"):
        open_zip(_zip(tmp_path / "a.zip", *((f"m{i}", b"") for i in range(20_001))))


def test_a_file_larger_than_its_kind_is_not_read(tmp_path: Path) -> None:
    content = os.urandom(1 << 16) * ((MAX_TEXT >> 16) + 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.json").write_bytes(content)
    for files in (FolderFiles(tmp_path / "folder"), open_zip(_zip(tmp_path / "a.zip", ("b.json", content)))):
        with pytest.raises(SourceError, match="more than"):
            files.read("b.json")
        assert files.read("b.json", limit=len(content)) == content


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.95])
def test_a_zip_that_is_cut_off_is_refused(tmp_path: Path, keep: float) -> None:
    path = _zip(tmp_path / "a.zip", ("configs/b.json", os.urandom(5000)))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(SourceError, match="cut off or damaged"):
        open_zip(path)


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", ("configs/b.json", os.urandom(5000)))
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        open_zip(path).read("configs/b.json")


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "bundle"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "real.pt").write_bytes(b"w")
    (folder / "models" / "model.pt").symlink_to(tmp_path / "secret.txt")
    (folder / "models" / "inside.pt").symlink_to("real.pt")
    (folder / "configs").symlink_to(tmp_path)
    files = FolderFiles(folder)
    for name in ("models/model.pt", "configs/secret.txt", "../secret.txt"):
        with pytest.raises(SourceError, match="leads out"):
            files.read(name)
    assert files.read("models/inside.pt") == b"w"


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()
    with pytest.raises(SourceError, match="no plain file"):
        FolderFiles(tmp_path).read("b.json")
