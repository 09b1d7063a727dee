"""For the site: params.yaml field by field, from the classes that check it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.structure.files import File
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from monai_tl.config import Params

PAGE = "params.md"
_INTRODUCTION = """# params.yaml, field by field

Every parameter of a run, one section a stage. A parameter left out has its default; one that does not exist, or lies
outside its range, is refused with all others at once, before anything starts (`monai-tl doctor` checks too).
A change re-runs the stages that depend on it, and no others.
This page is made from the classes that check the file.
"""
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any"}
_BOUNDS = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=params_page()))
    return files


def params_page() -> str:
    """The page as Markdown."""
    return "\n".join([_INTRODUCTION, *_section_lines("", Params, 2)])


def _section_lines(path: str, section: type[BaseModel], level: int) -> Iterator[str]:
    if path:
        summary, about = read_docstring(section)
        yield f"\n{'#' * level} `{path}`\n"
        yield summary + "\n"
        yield "| field | value | default | meaning |\n|---|---|---|---|"
        for name, field in section.model_fields.items():
            # a bar inside a code mark ends no cell here
            yield f"| `{name}` | {describe_type(field)} | {describe_default(field)} | {about.get(name, '')} |"
    for name, field in section.model_fields.items():
        inner = inner_section(field.annotation)
        if inner is not None:
            yield from _section_lines(f"{path}.{name}".lstrip("."), inner, min(level + bool(path), 4))


def read_docstring(section: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a class says of itself, and of each field: entries ``a, b: words`` of its part Attributes."""
    summary, _, attributes = (inspect.getdoc(section) or "").partition("\nAttributes:\n")
    about: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        entry = re.match(r" {4}([\w, ]+): (.*)", line)
        if entry and not line.startswith(" " * 5):
            names = [name.strip() for name in entry[1].split(",")]
            about |= dict.fromkeys(names, entry[2])
        elif line.strip():
            about |= {name: f"{about[name]} {line.strip()}" for name in names}
    return plain(summary.strip()), {name: plain(words) for name, words in about.items()}


def plain(text: str) -> str:
    """Markdown's code marks in place of those of docstrings."""
    return text.replace("``", "`")


def inner_section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds: itself, optional, or the items of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := inner_section(one))), None)


def describe_type(field: FieldInfo) -> str:
    """What may stand there, in words: ``whole number ≥ 1``, or the choices."""
    words = [_describe(field.annotation), *_bounds(field.metadata)]
    return " ".join(word for word in words if word)


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_describe(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_describe(one) for one in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_describe(arguments[0])}"
        return f"{len(arguments)} × {_describe(arguments[0])}"
    if origin is dict:
        return "mapping"
    if inner_section(annotation) is not None:
        return "section, see below"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(metadata: Any) -> list[str]:
    found = []
    for one in metadata:
        for holder in (one, *getattr(one, "metadata", ())):
            found += [f"{sign}{getattr(holder, key)}" for key, sign in _BOUNDS.items() if hasattr(holder, key)]
    return found


def describe_default(field: FieldInfo) -> str:
    """The default as YAML would have it; ``required`` where there is none."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return "its own defaults"
    if isinstance(default, tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else 'null' if default is None else default}`"
