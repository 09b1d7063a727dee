"""Pseudonyms and the key behind them."""

from __future__ import annotations

import hashlib
import hmac
import os
import re

import pytest
from pydicom.uid import UID

from monai_tl.commands import key as key_command
from monai_tl.dicom.deidentify import Pseudonyms, create_key, load_key, seeded_key
from monai_tl.errors import PrivacyError

KEY = bytes(range(32))


def test_pseudonyms_are_hmac_sha256_with_a_domain():
    digest = hmac.new(KEY, b"case|1.2|3.4", hashlib.sha256).hexdigest()
    assert Pseudonyms(KEY).case_id("1.2", "3.4") == f"case-{digest[:12]}"
    assert Pseudonyms(KEY).patient_key("4711") == f"patient-{hmac.new(KEY, b'patient|4711', 'sha256').hexdigest()[:12]}"


def test_equal_texts_of_different_kinds_give_unrelated_pseudonyms():
    names = Pseudonyms(KEY)
    found = [names.patient_key("x"), names.hash_uid("x"), names.item("file", "x"), names.site("x")]
    tails = {name.rpartition("-")[2][:6] for name in found}
    assert len(tails) == len(found)


def test_another_key_gives_other_pseudonyms():
    assert Pseudonyms(KEY).patient_key("x") != Pseudonyms(KEY[::-1]).patient_key("x")
    assert Pseudonyms(KEY).key_id != Pseudonyms(KEY[::-1]).key_id


def test_uid_is_valid_and_stable():
    uid = Pseudonyms(KEY).uid("1.2.840.1")
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert uid == Pseudonyms(KEY).uid("1.2.840.1")


def test_the_key_does_not_show():
    assert KEY.hex() not in repr(Pseudonyms(KEY))
    assert re.fullmatch(r"[0-9a-f]{8}", Pseudonyms(KEY).key_id)


def test_item_takes_names_that_are_not_utf8():
    assert re.fullmatch(r"file-[0-9a-f]{12}", Pseudonyms(KEY).item("file", os.fsdecode(b"caf\xe9_\xff.dcm")))


def test_created_key_is_private_random_and_loads(tmp_path):
    first, second = create_key(tmp_path / "a" / "one.key"), create_key(tmp_path / "two.key")
    assert first != second
    assert (tmp_path / "a" / "one.key").stat().st_mode & 0o777 == 0o600
    assert load_key(tmp_path / "a" / "one.key") == first


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "k"
    before = create_key(path)
    with pytest.raises(PrivacyError, match="already"):
        create_key(path)
    assert load_key(path) == before


def test_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(PrivacyError, match="monai-tl key"):
        load_key(tmp_path / "absent")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_readable_by_others_is_refused(tmp_path, mode):
    path = tmp_path / "k"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(PrivacyError, match="chmod 600"):
        load_key(path)


def test_short_key_is_refused(tmp_path):
    path = tmp_path / "k"
    path.write_bytes(b"x" * 31 + b"\n")
    path.chmod(0o600)
    with pytest.raises(PrivacyError, match="31 bytes"):
        load_key(path)
    with pytest.raises(PrivacyError, match="31 bytes"):
        Pseudonyms(b"x" * 31)


def test_key_inside_a_repository_is_refused_even_through_a_link(tmp_path):
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    create_key(repository / "deep" / "k")
    (tmp_path / "link").symlink_to(repository / "deep" / "k")
    for path in (repository / "deep" / "k", tmp_path / "link"):
        with pytest.raises(PrivacyError, match="git repository"):
            load_key(path)


def test_key_command_makes_then_keeps(tmp_path):
    path = tmp_path / "k"
    assert "Made pseudonym key" in key_command.run(path)
    content = path.read_bytes()
    assert "already" in key_command.run(path)
    assert path.read_bytes() == content
    assert content.strip().decode() not in key_command.run(path)


def test_key_command_with_a_seed_gives_the_same_key_everywhere(tmp_path):
    key_command.run(tmp_path / "a", seed=0)
    assert load_key(tmp_path / "a") == seeded_key(0) != seeded_key(1)
    assert "already" in key_command.run(tmp_path / "a", seed=0)
    with pytest.raises(PrivacyError, match="not the one of seed 1"):
        key_command.run(tmp_path / "a", seed=1)


def test_key_command_leaves_no_key_in_a_repository(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(PrivacyError, match="git repository"):
        key_command.run(tmp_path / "k")
    assert not (tmp_path / "k").exists()
