"""A bundle's configuration: what is data is read, what is code is refused with its line, and nothing runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_tl.errors import SourceError
from monai_tl.sources.config_text import ConfigText, NeedsCodeError, parse_config

CONTENT: dict[str, Any] = {
    "size": [96, 96, 64],
    "highres": True,
    "names": {"spleen": 1, "background": 0},
    "nested": {"flag": False, "list": [{"deep": 7}]},
    "dims": "$len(@size)",
    "classes": "$len(@names)",
    "low": "$-57",
    "pixdim": "$[1.5, 1.5, 1.5] if @highres else [3.0, 3.0, 3.0]",
    "coarse": "$[1, 1, 1] if @nested#flag else @size",
    "same": "@size",
    "macro": "%nested#list#0#deep",
    "other": "@nested::list::0::deep",
    "block": {"first": "@dims", "second": ["@low", "text"]},
    "plain": "an @ within text and a % too",
}


def _config(content: dict[str, Any] | str, name: str = "configs/inference.json") -> ConfigText:
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    return parse_config(name, text.encode())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("dims", 3),
        ("classes", 2),
        ("low", -57),
        ("pixdim", [1.5, 1.5, 1.5]),
        ("coarse", [96, 96, 64]),
        ("same", [96, 96, 64]),
        ("macro", 7),
        ("other", 7),
        ("block", {"first": 3, "second": [-57, "text"]}),
        ("plain", "an @ within text and a % too"),
    ],
)
def test_data_in_any_form_is_read(key: str, expected: Any) -> None:
    assert _config(CONTENT).resolve(key) == expected


@pytest.mark.parametrize(
    "code",
    [
        "$import os",
        "$__import__('os').system('touch CANARY')",
        "$@size.pop()",
        "$@network_def.to(@device)",
        "$len(@size) + 1",
        "$len(open('CANARY', 'w').name)",
        "$len(@size, 3)",
        "$print(@size)",
        "$[item for item in @size]",
        "$lambda: 3",
        "$'@size'",
        "$(open('CANARY', 'w') if @highres else 3)",
        "$3 if __import__('os').system('touch CANARY') else 4",
        "$@size[0]",
        "$",
        "$" + "(" * 1500,
        "$" + "-" * 1900 + "1",
        "@size + 1",
        "@@size",
        "@##size",
        "@nowhere",
        "%configs/train.json::size",
    ],
)
def test_code_is_refused_with_its_line(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = _config({**CONTENT, "wanted": {"value": code}})
    text = config.text.splitlines()
    number = next(index for index, line in enumerate(text, start=1) if '"value"' in line)
    with pytest.raises(NeedsCodeError, match=rf"configs/inference\.json, line {number} \(key wanted\.value\)") as error:
        config.resolve("wanted", "value")
    assert code[:80] in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_is_to_be_built_is_refused() -> None:
    config = _config({"wanted": {"act": {"_target_": "os.system", "command": "true"}}})
    with pytest.raises(NeedsCodeError, match=r"line 4 .*_target_.*os\.system"):
        config.resolve("wanted")


@pytest.mark.parametrize("form", ["  size: 3\n", "  - 3\n"])
def test_yaml_is_read_as_plain_data(form: str) -> None:
    config = parse_config("configs/inference.yaml", f"a:\n{form}b: '@a'\n".encode())
    assert config.resolve("b") in ({"size": 3}, [3])
    with pytest.raises(SourceError, match=r"configs/train\.yaml"):
        parse_config("configs/train.yaml", b"a: !!python/object/apply:os.system ['touch CANARY']\n")


def test_the_line_of_json_with_tabs_is_found() -> None:
    config = _config('{\n\t"a": {\n\t\t"b": "$exit()"\n\t}\n}')
    with pytest.raises(NeedsCodeError, match="line 3"):
        config.resolve("a", "b")


@pytest.mark.parametrize(
    "content",
    [
        {"a": "@b", "b": "@a"},
        {"a": ["@a"]},
        {"a": "$len(@a)"},
        {"a": "$@a"},
    ],
)
def test_circles_of_references_end(content: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"circle|without end"):
        _config(content).resolve("a")


def test_anchors_that_grow_without_measure_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(SourceError, match=r"configs/inference\.yaml: 1 fault\n.*line 5: .*aliases"):
        parse_config("configs/inference.yaml", "\n".join(lines).encode())


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "[1]", "\ufffe\x00", "[" * 100_000])
def test_what_is_no_configuration_is_one_clear_error(text: str) -> None:
    with pytest.raises(SourceError, match=r"configs/inference\.json"):
        _config(text)
