"""What the pages name exists: files they link or point at, parameters, commands with their options, strategies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from monai_tl.cli import app
from monai_tl.config import Params
from monai_tl.finetune_config import FinetuneConfig, StrategyName

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/RESULTS.md",
    ROOT / "monai_tl/template/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return BLOCK.sub("", text_of(page))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@each_page
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    folders = "monai_tl|flows|docs|tests|examples|benchmarks"
    paths = {
        span for span in SPAN.findall(prose(page)) if re.fullmatch(rf"(?:{folders})/[\w/.-]+\.(?:py|md|toml|css)", span)
    }
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds: itself, optional, or the items of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := section_of(one))), None)


def exists(keys: list[str], section: type[BaseModel] = Params) -> bool:
    if keys[0] not in section.model_fields:
        return False
    inner = section_of(section.model_fields[keys[0]].annotation)
    # a mapping without fixed keys, such as a network's arguments, takes any
    return len(keys) == 1 or inner is None or exists(keys[1:], inner)


def keys_in(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, list):
        for one in value:
            yield from keys_in(one, above)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, str(key))
            yield from keys_in(inner, (*above, str(key)))


@each_page
def test_parameters_that_are_named_exist(page: Path) -> None:
    sections = "|".join(Params.model_fields)
    spans = SPAN.findall(prose(page))
    named = {m[1] for span in spans if (m := re.match(rf"((?:{sections})(?:\.[a-z_]+)+)(?:$|:)", span))}
    # plan.json and the like are files
    named = {one for one in named if not re.search(r"\.(?:py|json|yaml|md)$", one)}
    for language, block in BLOCK.findall(text_of(page)):
        content = yaml.safe_load(dedent(block)) if language == "yaml" else None
        if isinstance(content, dict) and set(content) <= set(Params.model_fields):
            named |= {".".join(keys) for keys in keys_in(content)}
    assert sorted(one for one in named if not exists(one.split("."))) == []


def test_a_parameter_that_does_not_exist_is_seen() -> None:
    assert exists(["finetune", "lora_rank"])
    assert exists(["curve", "training", "max_steps"])
    assert exists(["ingest", "classes", "structures"])
    assert exists(["plan", "network", "arguments", "channels"])
    assert not exists(["finetune", "rank"])
    assert not exists(["curve", "training", "steps"])
    assert not exists(["ingest", "classes", "names"])


def command_faults(line: str) -> list[str]:
    """Verbs and options after each ``monai-tl`` of a line that the command line does not have."""
    faults = []
    for call in re.findall(r"\bmonai-tl ([^&|;#`]*)", line):
        words, command, path = call.split(), get_command(app), []
        while words and hasattr(command, "commands") and re.fullmatch(r"[a-z-]+", words[0]):
            path.append(words.pop(0))
            if path[-1] not in command.commands:
                faults.append(" ".join(path))
                break
            command = command.commands[path[-1]]
        else:
            known = {option for one in command.params for option in one.opts} | {"--help"}
            given = [word for word in words if re.match(r"--?[a-z]", word)]
            faults += [f"{' '.join(path)} {word}" for word in given if word not in known]
    return faults


@each_page
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    blocks = [line.strip() for _, block in BLOCK.findall(text_of(page)) for line in block.splitlines()]
    calls = [*SPAN.findall(prose(page)), *INDENTED.findall(prose(page)), *blocks]
    # prose in blocks says `monai-tl` too, with a word behind it that is no verb; calls begin with it
    calls = [
        line
        for line in calls
        if re.match(r"(?:nohup |[A-Z_]+=\S+ )*(?:python -m )?monai-tl ", line) or " && monai-tl " in line
    ]
    assert [fault for line in calls for fault in command_faults(re.sub(r"[\[\]]", " ", line))] == []


def test_a_command_that_does_not_exist_is_seen() -> None:
    assert command_faults("monai-tl rank SOURCES -w DIR --steps 5") == []
    assert command_faults("monai-tl sources fetch NAME") == ["sources fetch"]
    assert command_faults("monai-tl rank a --probe") == ["rank --probe"]


def test_every_strategy_and_parameter_of_a_strategy_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", text_of(ROOT / "docs/strategies.md"), re.MULTILINE)
    assert rows == list(get_args(StrategyName))
    fields = set(FinetuneConfig.model_fields)
    table = re.findall(r"^\| `\w+` \|[^|]*\|([^|]*)\|", text_of(ROOT / "docs/strategies.md"), re.MULTILINE)
    assert sorted({name for cell in table for name in SPAN.findall(cell)} - fields) == []


def test_the_readme_names_every_strategy_and_every_page() -> None:
    readme = text_of(ROOT / "README.md")
    ladder = readme[readme.index("## The ladder") : readme.index("## Proof")]
    assert set(get_args(StrategyName)) <= set(SPAN.findall(ladder))
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []
