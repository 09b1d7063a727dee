"""Entries of a folder that are no plain files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from damage import damaged, one_file, refused
from dicom_bytes import CANARY, new_series, write_series

OUTSIDE = "outside"
"""Name of a folder beside the input in which tests put a series that must stay out."""


@damaged
def link_loop(folder, rng):
    """Two folders that lead into each other."""
    series = new_series(rng)
    write_series(folder / "a", series.slices)
    (folder / "b").mkdir()
    (folder / "b" / "to_a").symlink_to("../a")
    (folder / "a" / "to_b").symlink_to("../b")
    return [(series.grid(),)]


@damaged
def link_to_its_own_folder(folder, rng):
    series = new_series(rng)
    write_series(folder, series.slices)
    (folder / "again").symlink_to(".")
    return [(series.grid(),)]


@damaged
def link_to_itself(folder, rng):
    (folder / CANARY).symlink_to(CANARY)
    return [(refused("file", "broken_link", "link"),), ()]


@damaged
def link_dangling(folder, rng):
    (folder / CANARY).symlink_to(f"/nowhere/{CANARY}")
    return [(refused("file", "broken_link", "link"),)]


@damaged
def link_to_a_folder_above(folder, rng):
    """Leads out of the input, to what holds it: a loop, and everything beside the input."""
    (folder / CANARY).symlink_to("../..")
    return [(refused("file", "link_loop", "link leads to"),)]


@damaged
def link_to_the_root(folder, rng):
    (folder / CANARY).symlink_to("/")
    return [(refused("file", "link_loop", "link leads to"),)]


@damaged
def link_to_an_endless_device(folder, rng):
    (folder / f"{CANARY}.dcm").symlink_to("/dev/zero")
    (folder / f"{CANARY}_2.dcm").symlink_to("/dev/stdin")
    return [(), (refused("file", "special_file broken_link not_dicom unreadable", "device|link|special", 2),)]


@damaged
def named_pipe(folder, rng):
    """Opening it would wait for ever."""
    os.mkfifo(folder / f"{CANARY}.dcm")
    return [(), (refused("file", "special_file not_dicom", "pipe|special"),)]


@damaged
def link_to_a_pipe(folder, rng):
    os.mkfifo(folder / "pipe")
    (folder / f"{CANARY}.dcm").symlink_to("pipe")
    return [(), (refused("file", "special_file not_dicom", "pipe|special", 2),)]


@damaged
def socket_file(folder, rng):
    os.mknod(folder / f"{CANARY}.dcm", stat.S_IFSOCK | 0o600)
    return [(), (refused("file", "special_file not_dicom", "socket|special"),)]


@damaged
def folder_called_dcm(folder, rng):
    series = new_series(rng)
    write_series(folder / f"{CANARY}.dcm" / "DICOMDIR", series.slices)
    return [(series.grid(),)]


@damaged
def folders_two_hundred_deep(folder, rng):
    series = new_series(rng)
    place = folder
    for _ in range(200):
        place = place / "d"
    write_series(place, series.slices)
    return [(series.grid(),)]


@damaged
def file_that_may_not_be_read(folder, rng):
    series = new_series(rng)
    paths = write_series(folder, series.slices)
    paths[2].chmod(0)
    return one_file("unreadable", "cannot be read")


@damaged
def folder_that_may_not_be_read(folder, rng):
    series = new_series(rng)
    write_series(folder / CANARY, series.slices)
    (folder / CANARY).chmod(0)
    return [(refused("file", "unreadable_folder", "permission|folder"),)]


def make_readable(folder: Path) -> None:
    """Undo closed permissions, so that the folder can be compared and removed."""
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(path, name)
            if not entry.is_symlink() and stat.S_IMODE(entry.lstat().st_mode) == 0:
                entry.chmod(0o700)
