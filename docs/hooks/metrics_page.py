"""For the site: metrics.json field by field, from its schema, and the schema itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files as package_files
from typing import Any

from mkdocs.structure.files import File

PAGE, SCHEMA = "metrics-json.md", "metrics.schema.json"
_INTRODUCTION = f"""# metrics.json, field by field

What the report says, for programs: `reports/metrics.json` of a workspace, and `docs/metrics.json` in each bundle. It
keeps to a [JSON schema]({SCHEMA}) (draft 2020-12), which is installed with the package in `monai_tl/report`:

```python
import json, jsonschema
from importlib.resources import files

schema = files("monai_tl.report") / "metrics.schema.json"
with open("reports/metrics.json") as metrics:
    jsonschema.validate(json.load(metrics), json.loads(schema.read_text()))
```

Undefined numbers are null. `*` stands for any name, `[]` for each item of a list. This page is made from the schema.

| field | value | meaning |
|---|---|---|"""
_SHARED = ("summary", "summaries", "reliability")
_WORDS = {"integer": "whole number", "object": "mapping", "array": "list", "string": "text", "boolean": "true or false"}


def on_files(files: Any, config: Any) -> Any:
    """Add the page and the schema."""
    files.append(File.generated(config, PAGE, content=metrics_page()))
    files.append(File.generated(config, SCHEMA, content=_schema_text()))
    return files


def _schema_text() -> str:
    return package_files("monai_tl.report").joinpath(SCHEMA).read_text(encoding="utf-8")


def metrics_page() -> str:
    """The page as Markdown."""
    schema = json.loads(_schema_text())
    lines = [_INTRODUCTION, *_rows(schema, schema)]
    for name in _SHARED:
        lines += [f"\n## {name}\n", "| field | value | meaning |\n|---|---|---|", *_rows(schema["$defs"][name], schema)]
    return "\n".join(lines) + "\n"


def _rows(node: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """A row for each property, and for those below it."""
    for name, field in node.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        yield f"| `{where}` | {_describe(field)} | {field.get('description', '')} |"
        yield from _rows(field, schema, where)
    for key, mark in (("additionalProperties", ".*"), ("items", "[]")):
        inner = node.get(key)
        if isinstance(inner, dict):
            for part in inner.get("allOf", ()):
                yield f"| `{path}{mark}` | {_describe(part)} | with the fields of {_describe(part)}, and these |"
            yield from _rows(inner, schema, path + mark)


def _describe(field: Mapping[str, Any]) -> str:
    """What may stand there, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        if name in _SHARED:
            return f"[{name}](#{name})"
        return {"number": "number or null", "numbers": "mapping of numbers", "sha256": "sha256, 64 hex digits"}[name]
    if "anyOf" in field:
        return " or ".join(_describe(one) for one in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    types = field["type"] if isinstance(field["type"], list) else [field["type"]]
    return " or ".join(_WORDS.get(one, one) for one in types)
