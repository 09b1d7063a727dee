"""The demo's source is what the command in its card makes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from monai_tl.files import sha256_file
from monai_tl.sources.card import read_source

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "sources/abdomen_a"


@pytest.mark.long
def test_the_command_in_the_card_makes_the_same_weights(tmp_path: Path) -> None:
    """Run as written, in an empty folder with the parameter file and a home of its own."""
    (tmp_path / "sources/abdomen_a").mkdir(parents=True)
    (tmp_path / "sources/abdomen_a/pretrain.yaml").write_bytes((SHIPPED / "pretrain.yaml").read_bytes())
    card = read_source(SHIPPED).card
    for command in card.rebuild.split("&&"):
        words = shlex.split(command.replace("~", str(tmp_path / "home")))
        assert words[0] == "monai-tl"
        subprocess.run([sys.executable, "-m", "monai_tl", *words[1:]], cwd=tmp_path, check=True)
    made = read_source(tmp_path / "sources/abdomen_a").card
    assert made.weights.sha256 == sha256_file(tmp_path / "sources/abdomen_a" / made.weights.file)
    assert made.weights.sha256 == card.weights.sha256
    assert made.input == card.input
    assert made.fingerprint == card.fingerprint is not None
