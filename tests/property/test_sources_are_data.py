"""Whatever stands in a bundle's or a results folder's files, reading them ends in a source or in one of our errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunet_results import dataset, plans
from zoo_bundles import ct_steps, inference, metadata, write_bundle_files

from monai_tl.errors import MonaiTLError
from monai_tl.sources.card import read_source


def _nested(depth: int) -> Any:
    """Lists in lists, which JSON reads and whatever is recursive does not."""
    result: Any = 1
    for _ in range(depth):
        result = [result]
    return result


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.floats(allow_nan=True),
    st.sampled_from(["", "$", "@", "%", "@network_def", "$@preprocessing", "$open('CANARY', 'w')", "os.system", "3"]),
    st.sampled_from([[], {}, [1], [[1]], {"_target_": "os.system"}, {"0": None}, [None, "a"], 10**12]),
    st.sampled_from([10**400, "²", "@a#²", f"@a#{'9' * 5000}", {"²": "a"}, {"9" * 5000: "a"}, [10**400] * 3, ["²"]]),
    st.sampled_from([80, 400]).map(_nested),
    st.text(max_size=6),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Key paths of everything in parsed JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _changed(content: Any, path: tuple[Any, ...], value: Any, remove: bool) -> Any:
    result = deepcopy(content)
    place = result
    for key in path[:-1]:
        place = place[key]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


CONFIG = inference("UNet", 1, 2, ct_steps())
META = metadata(["image"], ["background", "spleen"])
PLANS, DATASET = plans(), dataset()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return write_bundle_files(folder, CONFIG, META, {"weight": torch.ones(1)})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    torch.save({"weight": torch.ones(1)}, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def _ends_well(path: Path) -> None:
    try:
        card = read_source(path).card
    except MonaiTLError:
        return
    # what is accepted is a card that holds by itself
    type(card).model_validate(card.model_dump())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*_paths(CONFIG)]), VALUES, st.booleans())
def test_any_configuration_of_a_bundle(bundle: Path, path: tuple[Any, ...], value: Any, remove: bool) -> None:
    content = json.dumps(_changed(CONFIG, path, value, remove))
    (bundle / "configs" / "metadata.json").write_text(json.dumps(META))
    (bundle / "configs" / "inference.json").write_text(content)
    _ends_well(bundle)
    assert not Path("CANARY").exists()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*_paths(META)]), VALUES, st.booleans())
def test_any_metadata_of_a_bundle(bundle: Path, path: tuple[Any, ...], value: Any, remove: bool) -> None:
    (bundle / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    (bundle / "configs" / "metadata.json").write_text(json.dumps(_changed(META, path, value, remove)))
    _ends_well(bundle)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*_paths(PLANS)]), VALUES, st.booleans())
def test_any_plans(results: Path, path: tuple[Any, ...], value: Any, remove: bool) -> None:
    (results / "dataset.json").write_text(json.dumps(DATASET))
    (results / "plans.json").write_text(json.dumps(_changed(PLANS, path, value, remove)))
    _ends_well(results)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*_paths(DATASET)]), VALUES, st.booleans())
def test_any_dataset(results: Path, path: tuple[Any, ...], value: Any, remove: bool) -> None:
    (results / "plans.json").write_text(json.dumps(PLANS))
    (results / "dataset.json").write_text(json.dumps(_changed(DATASET, path, value, remove)))
    _ends_well(results)
