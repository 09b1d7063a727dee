"""Text that people write (YAML) as checked data: every fault is one line that begins with its key path."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from monai_tl.errors import ConfigError

_MAX_REPEATED = 20_000


def read_text(path: Path, missing: str) -> str:
    """A text file of the user's.

    Args:
        path: Named in messages by its last part alone.
        missing: What to say, and to do, when there is no such file.

    Raises:
        ConfigError: It is missing, no file, not readable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(missing, path.name) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is no UTF-8; save the file as UTF-8 text", path.name) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}; make it a readable file", path.name) from None


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML as plain data; a key given twice is a fault, and so are aliases that grow without measure.

    Raises:
        ConfigError: It is no YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{line}no valid YAML: {getattr(error, 'problem', error)}", where) from None
    except (TypeError, ValueError, RecursionError) as error:
        # keys that are lists, dates that do not exist, endless nesting
        raise ConfigError(f"no valid YAML: {error}", where) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would silently keep the last), and aliases without measure."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _unfolded(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for with all its aliases written out.

    Args:
        node: A value of a document.
        known: The same of the nodes that were looked at before, by ``id``; 0 while one is being looked at.
    """
    if id(node) not in known:
        known[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_unfolded(one, known) for one in inner)
    fault = f"aliases stand for more than {_MAX_REPEATED} values" if known[id(node)] else "an anchor holds itself"
    # without aliases each value counts once
    if not known[id(node)] or known[id(node)] - len(known) > _MAX_REPEATED:
        raise yaml.composer.ComposerError(None, None, fault, node.start_mark)
    return known[id(node)]


def fault_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a fault of a pydantic error, each beginning with its key path.

    Args:
        error: What checking ``model`` raised.
        model: Tells which keys there are, where one is unknown.
    """
    return [line for item in error.errors() for line in _lines(item, model)]


def _lines(item: Any, model: type[BaseModel]) -> Iterator[str]:
    path = ".".join(str(part) for part in item["loc"]) or "(file)"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = _unknown_key(str(item["loc"][-1]), _keys_at(model, item["loc"][:-1]))
    elif item["type"] == "missing":
        message = "is missing"
    # a validator tells several faults of one key in several lines
    yield from (f"{path}: {line}" for line in message.splitlines())


def _unknown_key(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"no such parameter; did you mean '{close[0]}'?"
    return f"no such parameter; there are {', '.join(known)}" if known else "no such parameter"


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Keys of the mapping at a path; empty where the types do not tell."""
    found: list[type[BaseModel]] = [model]
    for part in path:
        # an index stands for one item of a list, whose model was found with the list
        if isinstance(part, str):
            fields = [one.model_fields[part].annotation for one in found if part in one.model_fields]
            found = [inner for annotation in fields for inner in _models_in(annotation)]
    return [key for one in found for key in one.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in _models_in(part)]
