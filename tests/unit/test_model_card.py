"""The card of a finished model: what it was trained on, and what of its source's contract was broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import SCHEME, UNET, make_fingerprint, make_source

from monai_tl.config import PlanConfig
from monai_tl.networks.builders import build_network
from monai_tl.records import SizeRule
from monai_tl.sources.card import Card, read_source
from monai_tl.training.model_folder import fresh_audit, write_model
from monai_tl.training.position import Outcome, Position
from monai_tl.transfer.planning import make_plan

CONFIG = PlanConfig(source="s", accept_broken=("field of view",))


def write(folder: Path, source, found) -> Card:
    plan = make_plan(found, SCHEME, CONFIG, source)
    network = build_network(UNET, plan.n_channels, 3, seed=0)
    outcome = Outcome(network.state_dict(), Position(), "budget")
    write_model(folder, plan, source, fresh_audit(network, plan), outcome, "transfer-0", found)
    return read_source(folder).card


def test_it_keeps_the_fingerprint_and_a_next_target_is_measured_against_it(tmp_path: Path) -> None:
    found = make_fingerprint()
    card = write(tmp_path, make_source(), found)
    assert card.fingerprint == found
    assert card.notes == "Fine-tuned from organs."
    assert card.input.channels == ("CT",)
    model = read_source(tmp_path)
    shift = make_plan(found, SCHEME, CONFIG, model).shift
    assert shift is not None
    assert (shift.basis, shift.score) == ("fingerprint", 0.0)
    coarser = make_fingerprint(spacing_mm_median=(2.0, 2.0, 10.0))
    shift = make_plan(coarser, SCHEME, CONFIG, model).shift
    assert shift is not None
    assert (shift.score, shift.largest) == (1.0, "voxel size S-I")


def test_a_broken_contract_that_was_accepted_stays_with_the_model(tmp_path: Path) -> None:
    source = make_source(size_rule=SizeRule(divisor=4, min_vox=(256, 256, 256)))
    card = write(tmp_path, source, make_fingerprint())
    assert card.notes.startswith("Fine-tuned from organs. Its contract was broken and this accepted: field of view (")
    assert "256 voxels" in card.notes
    # the model itself was tuned on what it was given, and asks for no more
    assert card.input.size_rule.min_vox == (8, 8, 8)


@pytest.mark.parametrize("channels", [(), ("T1",)])
def test_channels_are_named_where_the_data_set_names_them(tmp_path: Path, channels: tuple[str, ...]) -> None:
    found = make_fingerprint(channels=channels)
    assert write(tmp_path, make_source(), found).input.channels == (channels or ("CT",))
