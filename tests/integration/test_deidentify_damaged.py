"""Damaged and hostile folders: refused or written, never a crash, nothing outside, no identifier in what comes out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import damaged
import pytest
from damage import KINDS

from monai_tl.commands import deidentify
from monai_tl.dicom.deidentify import create_key
from monai_tl.errors import DataError

_DEFAULT = (
    "pixel_length_overflow", "rle_bomb_that_agrees", "rle_of_a_billion_segments", "rle_truncated", "j2k_bomb",
    "j2k_of_other_size", "jpeg_ls_bomb", "trailing_garbage", "trailing_padding_element", "nested_undefined",
    "nested_defined", "nested_private_unknown", "nested_in_patient_identifiers", "deflate_bomb_in_the_pixels",
    "explicit_that_says_implicit", "link_loop", "named_pipe", "patient_id_climbs", "series_uid_absolute",
    "identifiers_with_nul", "identifiers_of_lone_bytes", "identifiers_of_a_megabyte", "identifiers_blank",
    "canaries_where_words_are_copied", "canaries_where_a_series_is_split", "charset_escape_garbage",
    "file_names_not_utf8",
    "bad_file_with_a_hostile_name", "rtstruct_of_canary_names", "seg_deeply_nested", "fragments_in_a_raw_syntax",
    "two_frames_of_fragments_for_one", "offset_table_lies", "bits_allocated_12", "high_bit_65535", "frames_2147483647",
)  # fmt: skip
_REFUSED_FOR = {
    "deflate_bomb_in_the_pixels": {"deflate_bomb"},
    "j2k_of_other_size": {"undecodable_pixels"},
    "nested_undefined": {"damaged"},
}


@pytest.mark.parametrize("name", _DEFAULT)
def test_a_damaged_folder(tmp_path, monkeypatch, name):
    codes = _deidentify(name, tmp_path, monkeypatch)
    assert codes >= _REFUSED_FOR.get(name, set())


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_damaged_folder(tmp_path, monkeypatch, name):
    _deidentify(name, tmp_path, monkeypatch)


def _deidentify(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Codes of what was refused."""
    monkeypatch.setenv("MONAI_TL_EXECUTOR", "sequential")
    damaged.make(name, root / "in")
    create_key(root / "key")
    before = {path.name for path in root.iterdir()}
    # when nothing was written: the list is there all the same
    with contextlib.suppress(DataError):
        deidentify.run(root / "in", root / "out", key_file=root / "key")
    assert {path.name for path in root.iterdir()} == before | {"out"}
    rejected = json.loads((root / "out" / "rejected.json").read_text())["rejected"]
    codes = {one["code"] for one in rejected}
    # a fault of ours would be listed so
    assert "failed" not in codes
    for path in (root / "out").rglob("*"):
        assert "canary" not in path.name.lower()
        if path.is_file():
            assert b"canary" not in path.read_bytes().lower()
    return codes
