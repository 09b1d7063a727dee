"""The names that a bundle may give its network: each is MONAI's, and stands for the class that we build."""

from __future__ import annotations

import importlib

import pytest
from monai.networks import nets
from zoo_bundles import NETWORKS

from monai_tl.networks.builders import find_network
from monai_tl.sources.bundle_network import TARGETS


@pytest.mark.parametrize("path", sorted(TARGETS))
def test_a_name_stands_for_the_class_that_its_builder_makes(path: str) -> None:
    # MONAI looks a short name up among its networks
    module, _, name = (path if "." in path else f"{nets.__name__}.{path}").rpartition(".")
    assert getattr(importlib.import_module(module), name) is find_network(TARGETS[path]).factory


def test_no_name_that_monai_has_for_them_is_missing() -> None:
    classes = {find_network(name).factory for name in TARGETS.values()}
    known = {name for name, item in vars(nets).items() if isinstance(item, type) and item in classes}
    assert known == {path for path in TARGETS if "." not in path}


def test_each_network_is_read_from_a_bundle_in_a_test() -> None:
    assert {TARGETS[name] for name in NETWORKS} == set(TARGETS.values())
