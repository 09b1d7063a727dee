"""A card in the making: what a source says, what it does not say, and what the user adds."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_tl.errors import ConfigError, SourceError
from monai_tl.faults import parse_yaml
from monai_tl.sources.card import CARD_FILE, Card, check_card

_MAX_CARD = 1 << 20


class IncompleteSourceError(SourceError):
    """A source does not say all that must be known.

    Args:
        message: Which lines are missing and where to write them.
        draft: What is known, as a card's content.
        missing: Dotted keys of the lines that are missing → why.
    """

    def __init__(self, message: str, draft: dict[str, Any], missing: dict[str, str]) -> None:
        super().__init__(message)
        self.draft = draft
        self.missing = missing


@dataclass
class Draft:
    """Content of a card, gathered line by line.

    Attributes:
        content: Nested like card.yaml.
        faults: Dotted key → why it is not known. What the user's own card states mends it.
        notes: What was assumed or left out.
    """

    content: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any) -> None:
        """Set a line by its dotted key."""
        *parents, last = key.split(".")
        place = self.content
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value

    def lack(self, key: str, why: str) -> None:
        """Say why a line is not known; the first reason stays."""
        self.faults.setdefault(key, why)

    def finish(self, path: Path, own: Mapping[str, Any], own_path: Path) -> Card:
        """The card.

        Args:
            path: Of the source, for messages.
            own: Content of the user's card; its lines win.
            own_path: Where that card is, or would be.

        Raises:
            IncompleteSourceError: A line is not known; all of them are listed.
            SourceError: The lines do not fit together.
        """
        if "weights" in own:
            raise SourceError(f"{own_path}: weights are those of {path}; leave them out of this card")
        content = _merged(self.content, own)
        missing = {key: why for key, why in self.faults.items() if not _has(own, key)}
        if missing:
            listed = "\n".join(f"  {key}: {why}" for key, why in missing.items())
            count = "1 line" if len(missing) == 1 else f"{len(missing)} lines"
            raise IncompleteSourceError(
                f"{path}: {count} of its contract cannot be read; write what is true into {own_path}, these lines "
                f"alone ('monai-tl sources show' prints a draft)\n{listed}",
                content,
                missing,
            )
        if own:
            return check_card(content, own_path)
        return check_card(content, path, f"write what is true into {own_path}, these lines alone")


def read_own_lines(path: Path) -> dict[str, Any]:
    """Lines of a card that a user has put beside a source; empty where there is none.

    Raises:
        SourceError: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as stream:
            content = parse_yaml(stream.read(_MAX_CARD), path.name)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}; write it anew") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path}: holds no mapping; write lines of a {CARD_FILE}")
    return content


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    result = deepcopy(dict(base))
    for key, value in own.items():
        below = result.get(key)
        # a rule or a network is one thing: half of one and half of another is neither
        joined = isinstance(value, Mapping) and isinstance(below, Mapping) and key == "input"
        result[key] = _merged(below, value) if joined and isinstance(below, Mapping) else deepcopy(value)
    return result


def _has(content: Mapping[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    if first not in content:
        return False
    return not rest or (isinstance(content[first], Mapping) and _has(content[first], rest))
