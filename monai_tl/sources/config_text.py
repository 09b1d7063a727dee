"""A bundle's configuration as data: references are looked up, literals are read, and nothing is ever run.

MONAI's configuration language has ``@id`` and ``%id`` (references) and ``$…`` (Python that MONAI evaluates). Of the
second, three forms occur in the model zoo where a network or its preprocessing needs them and are data in disguise:
``$`` before a literal, ``$A if @id else B`` and ``$len(@id)``. These are read from their syntax tree. Anything else
needs code, and is refused with its line.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from monai_tl.errors import ConfigError, SourceError
from monai_tl.faults import parse_yaml

Key = str | int
_MAX_DEPTH = 24
_MAX_NESTING = 64
_MAX_VALUES = 20_000
_MAX_EXPRESSION = 2000
_SHOWN = 120
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_INDEX = re.compile(r"[0-9]{1,9}")
"""``isdigit`` holds for more than ``int`` reads (superscripts), and for numbers longer than it reads."""
_MARK = "reference_"


class NeedsCodeError(SourceError):
    """A value can only be known by running something; says file, key, line and text."""


@dataclass(frozen=True)
class ConfigText:
    """One configuration file.

    Attributes:
        name: For messages.
        text: As it was written.
        content: Parsed; references and expressions are still strings.
    """

    name: str
    text: str
    content: dict[str, Any]

    def resolve(self, *path: Key) -> Any:
        """The value at a key path with everything below it, references looked up.

        Raises:
            NeedsCodeError: It holds a ``_target_`` or an expression that is not data.
            KeyError: There is no such key.
            SourceError: References run in a circle, or the value is larger than any network's arguments.
        """
        return _Resolver(self).value(self.raw(*path), path, 0)

    def raw(self, *path: Key) -> Any:
        """The value at a key path as it was written; a reference on the way is followed.

        Raises:
            KeyError: There is no such key.
            NeedsCodeError: An expression stands in the way.
        """
        value: Any = self.content
        for depth, key in enumerate(path):
            if isinstance(value, str):
                value = _Resolver(self).value(value, path[:depth], 0)
            if isinstance(value, dict):
                value = value[str(key)]
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                raise KeyError(key)
        return value

    def follow(self, *path: Key) -> tuple[Any, tuple[Key, ...]]:
        """The value at a key path and where it is written, after references to whole values."""
        value = self.raw(*path)
        for _ in range(_MAX_DEPTH):
            found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                return value, path
            path = _id_path(found[1])
            value = self.raw(*path)
        raise SourceError(f"{self.at(*path)}: references run in a circle; correct the file")

    def at(self, *path: Key) -> str:
        """``configs/inference.json, line 12 (key a.b)``."""
        number, _ = self._place(*path)
        return f"{self.name}, line {number + 1} (key {'.'.join(map(str, path))})"

    def needs_code(self, *path: Key, why: str = "needs code to run") -> NeedsCodeError:
        """The error for a value, with its line."""
        return NeedsCodeError(f"{self.at(*path)} {why}: {self._excerpt(*path)}")

    def _excerpt(self, *path: Key) -> str:
        """The line of a value; of a long one, as minified JSON has, what begins with the value."""
        number, column = self._place(*path)
        lines = self.text.splitlines() or [""]
        text = lines[min(number, len(lines) - 1)]
        return (text if len(text) <= _SHOWN else text[column:])[:_SHOWN].strip()

    @cached_property
    def _nodes(self) -> Any:
        """The file with the places of its values; composed once, for it takes as long as all the rest."""
        try:
            # JSON is YAML but for tabs between tokens, which YAML has no place for
            return yaml.compose(self.text.replace("\t", " "), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            return None

    def _place(self, *path: Key) -> tuple[int, int]:
        """Line and column, from 0, at which a value, or the last part of its path that exists, begins."""
        node = self._nodes
        place = 0, 0
        for key in path:
            node = _child(node, key)
            if node is None:
                break
            place = node.start_mark.line, node.start_mark.column
        return place


def parse_config(name: str, content: bytes) -> ConfigText:
    """Parse JSON or YAML as plain data.

    Raises:
        SourceError: It is neither, gives a key twice, or holds no mapping.
    """
    try:
        text = content.decode("utf-8")
        parsed = parse_yaml(text, name) if name.endswith((".yaml", ".yml")) else _parse_json(text)
    except ConfigError as error:
        raise SourceError(f"{error}; fetch the source again") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name}: is no valid JSON ({error}); fetch the source again") from None
    if not isinstance(parsed, dict):
        raise SourceError(f"{name}: holds no mapping; fetch the source again")
    if _is_deeper(parsed, _MAX_NESTING):
        raise SourceError(f"{name}: is nested more than {_MAX_NESTING} deep, which no configuration is; fetch it again")
    return ConfigText(name, text, parsed)


def _is_deeper(content: Any, limit: int) -> bool:
    """Whether anything lies deeper, found level by level: whatever looks at the values later may be recursive."""
    level = [content]
    for _ in range(limit):
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _parse_json(text: str) -> Any:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"key {key!r} is given twice")
            found[key] = value
        return found

    return json.loads(text, object_pairs_hook=unique)


class _Resolver:
    """Looks values up, counting them: circles of references must come to an end."""

    def __init__(self, config: ConfigText) -> None:
        self.config = config
        self.n_values = 0

    def value(self, value: Any, path: tuple[Key, ...], depth: int) -> Any:
        self.n_values += 1
        if depth > _MAX_DEPTH or self.n_values > _MAX_VALUES:
            raise SourceError(f"{self.config.at(*path)}: references run in a circle or without end; correct the file")
        if isinstance(value, dict):
            if "_target_" in value:
                raise self.config.needs_code(*path, "_target_", why="names something to build, which needs code to run")
            return {str(key): self.value(item, (*path, key), depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if value.startswith("$"):
            return self._expression(value[1:], path, depth)
        if value.startswith(("@", "%")):
            found = _REFERENCE.fullmatch(value)
            if found is None:
                raise self.config.needs_code(*path, why="is no plain reference")
            return self._referred(found[1], path, depth)
        return value

    def _referred(self, identifier: str, path: tuple[Key, ...], depth: int) -> Any:
        target = _id_path(identifier)
        try:
            return self.value(self.config.raw(*target), target, depth + 1)
        except KeyError:
            raise self.config.needs_code(*path, why=f"refers to {identifier!r}, which is not in the file") from None

    def _expression(self, text: str, path: tuple[Key, ...], depth: int) -> Any:
        if len(text) > _MAX_EXPRESSION or _MARK in text:
            raise self.config.needs_code(*path)
        names: list[str] = []

        def mark(found: re.Match[str]) -> str:
            names.append(found[1])
            return f"{_MARK}{len(names) - 1}"

        try:
            # parsing runs nothing
            tree = ast.parse(_REFERENCE.sub(mark, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self.config.needs_code(*path) from None
        if any(isinstance(node, ast.Constant) and _MARK in str(node.value) for node in ast.walk(tree)):
            # an @ within quotes is no reference
            raise self.config.needs_code(*path)

        def operand(node: ast.expr) -> Any:
            if isinstance(node, ast.Name) and node.id.startswith(_MARK):
                return self._referred(names[int(node.id.removeprefix(_MARK))], path, depth)
            try:
                return _as_lists(ast.literal_eval(node))
            except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError):
                raise self.config.needs_code(*path) from None

        if isinstance(tree, ast.IfExp):
            return operand(tree.body if operand(tree.test) else tree.orelse)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "len":
            if len(tree.args) == 1 and not tree.keywords:
                counted = operand(tree.args[0])
                if isinstance(counted, list | tuple | dict | str):
                    return len(counted)
            raise self.config.needs_code(*path)
        return operand(tree)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _id_path(identifier: str) -> tuple[Key, ...]:
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in re.split("#|::", identifier))


def _child(node: Any, key: Key) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key]
    return None
