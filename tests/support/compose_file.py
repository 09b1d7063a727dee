"""compose.yaml as an engine would see it: variables filled in, merges done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
GIVEN = {
    "MONAI_TL_WORKSPACE": "/srv/liver", "MONAI_TL_KEY": "/srv/pseudonym.key", "MONAI_TL_AUTH": "team:geheim-1",
    "POSTGRES_PASSWORD": "geheim-2", "ORTHANC_PASSWORD": "geheim-3",
}  # fmt: skip


class MissingError(Exception):
    """A variable that has no default is not set."""


def interpolate(text: str, given: Mapping[str, str]) -> str:
    """As the Compose Specification has it: ``${NAME:?message}`` and ``${NAME:-default}``."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found[1], found[2], found[3]
        if given.get(name):
            return given[name]
        if kind == "-":
            return str(rest)
        raise MissingError(f"{name}: {rest}")

    return _VARIABLE.sub(value, text)


def compose(given: Mapping[str, str] = GIVEN) -> dict[str, Any]:
    return dict(yaml.safe_load(interpolate((ROOT / "compose.yaml").read_text(), given)))
