"""For the site: pages that the navigation of mkdocs.yml does not name are added to it, so that none is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TOPICS = "What it does, and why"


def on_config(config: Any) -> Any:
    """Append the decisions in their order, and topics that mkdocs.yml does not name."""
    root = Path(config["docs_dir"])
    decisions = [f"decisions/{path.name}" for path in sorted((root / "decisions").glob("*.md"))]
    config["nav"].append({"Decisions": decisions})
    known = set(_paths(config["nav"]))
    topics = next(part[_TOPICS] for part in config["nav"] if isinstance(part, dict) and _TOPICS in part)
    topics += [path.name for path in sorted(root.glob("*.md")) if path.name not in known]
    return config


def _paths(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [path for part in (nav.values() if isinstance(nav, dict) else nav) for path in _paths(part)]
