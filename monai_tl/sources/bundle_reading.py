"""MONAI bundles, folder or zip, read as data: network, contract, classes and the name of the weights.

Read are ``configs/metadata.json``, one configuration (``inference``, else ``evaluate``, else ``train``), the licence
and the weights. Nothing else is opened: no script, no logging configuration.
"""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

from monai_tl.errors import SourceError, WeightsError
from monai_tl.sources.bundle_network import read_network
from monai_tl.sources.bundle_preprocessing import read_preprocessing
from monai_tl.sources.card import MAX_VOXELS, Source
from monai_tl.sources.config_text import ConfigText, Key, parse_config
from monai_tl.sources.drafts import Draft, read_own_lines
from monai_tl.sources.packed_files import MAX_WEIGHTS, METADATA, PackedFiles

_CONFIGS = tuple(
    f"configs/{name}.{ending}" for name in ("inference", "evaluate", "train") for ending in ("json", "yaml", "yml")
)
_PREPROCESSING = (("preprocessing",), ("validate", "preprocessing"), ("val_transforms",), ("transforms",))
_WEIGHTS = ("models/model.safetensors", "models/model.pt", "models/model.pth")
_SUFFIXES = (".safetensors", ".pt", ".pth")
_LOADED = re.compile(r"['/]([A-Za-z0-9][A-Za-z0-9._-]*\.(?:safetensors|pt|pth|ts))['\"]?$")
_LICENCES = (
    ("Attribution-NonCommercial", "CC-BY-NC (see LICENSE in the bundle): not for commercial use"),
    ("NonCommercial", "non-commercial (see LICENSE in the bundle)"),
    ("non-commercial", "non-commercial (see LICENSE in the bundle)"),
    ("Apache License", "Apache-2.0"),
    ("MIT License", "MIT"),
    ("BSD 3-Clause", "BSD-3-Clause"),
)
_MODALITIES = {"MRI": "MR", "PET": "PT"}
_CONTRACT = "network_data_format"


def read_bundle(files: PackedFiles, own_card: Path) -> Source:
    """Read a MONAI bundle as a source.

    Args:
        files: Of the bundle.
        own_card: Where a user may have put lines that the bundle lacks.

    Raises:
        IncompleteSourceError: Part of the contract is not there, or only code would tell; each line is listed.
        SourceError: A file is damaged, or lines contradict each other.
        WeightsError: There are no weights, or they are TorchScript, which is code.
    """
    names = files.names()
    metadata = parse_config(METADATA, files.read(METADATA))
    config_name = next((name for name in _CONFIGS if name in names), None)
    if config_name is None:
        raise SourceError(f"{files.root}: has none of {', '.join(_CONFIGS[::3])}; its network is not known")
    config = parse_config(config_name, files.read(config_name))
    _check_imports(config)
    own = read_own_lines(own_card)
    draft = Draft()
    _put_network(config, draft)
    _put_inputs(metadata, draft)
    _put_classes(metadata, config, draft)
    path = _first_key(config, _PREPROCESSING) or ("preprocessing",)
    n_channels = draft.content.get("network", {}).get("n_channels", 1)
    read_preprocessing(config, path, draft, n_channels)
    _put_padding(config, draft)
    _put_window(metadata, config, draft)
    _put_texts(files, metadata, draft)
    weights_name = find_weights(files, config)
    content = files.read(weights_name, MAX_WEIGHTS)
    file_name = PurePosixPath(weights_name).name
    draft.put("weights", {"file": file_name, "sha256": hashlib.sha256(content).hexdigest()})
    draft.put("notes", "; ".join([f"read from a MONAI bundle ({config_name})", *draft.notes]))
    card = draft.finish(files.root, own, own_card)
    return Source(card, files.root, "bundle", weights_name, tuple(draft.notes))


def _check_imports(config: ConfigText) -> None:
    """``imports`` is never run; what is not even an import has no business there."""
    for index, line in enumerate(_as_list(config.content.get("imports"))):
        try:
            statements = ast.parse(str(line).removeprefix("$")).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            statements = []
        if not statements or not all(isinstance(one, ast.Import | ast.ImportFrom) for one in statements):
            error = config.needs_code("imports", index, why="is no import but code, which would be run")
            raise SourceError(f"{error}; do not use this bundle")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first_key(config: ConfigText, choices: tuple[tuple[Key, ...], ...]) -> tuple[Key, ...] | None:
    for path in choices:
        joined = "#".join(map(str, path))
        if joined in config.content:
            return (joined,)
        try:
            config.raw(*path)
        except (KeyError, SourceError):
            continue
        return path
    return None


def _put_network(config: ConfigText, draft: Draft) -> None:
    where = next((key for key in ("network_def", "net", "model", "network") if key in config.content), None)
    if where is None:
        draft.lack("network", f"{config.name} has no network_def")
        return
    try:
        network, notes = read_network(config, where)
    except SourceError as error:
        draft.lack("network", str(error))
        return
    except KeyError as error:
        draft.lack("network", f"{config.at(where)}: refers to {error}, which is not there")
        return
    draft.put("network", network)
    draft.notes += notes


def _format_of(metadata: ConfigText, side: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The one image on a side of ``network_data_format``."""
    try:
        images = metadata.content[_CONTRACT][side]
    except (KeyError, TypeError):
        return {}
    if not isinstance(images, dict):
        return {}
    found = next((images[name] for name in names if name in images), None)
    only = next(iter(images.values())) if len(images) == 1 else None
    chosen = found if found is not None else only
    return chosen if isinstance(chosen, dict) else {}


def _put_inputs(metadata: ConfigText, draft: Draft) -> None:
    image = _format_of(metadata, "inputs", ("image",))
    modality = image.get("modality")
    if isinstance(modality, str) and modality and modality.casefold() not in ("n/a", "any"):
        modality = _MODALITIES.get(modality.upper(), modality.upper() if len(modality) <= 3 else modality)
        draft.put("input.modality", modality)
    else:
        draft.lack("input.modality", f"{METADATA} states none under {_CONTRACT}.inputs.image")
    n_channels = draft.content.get("network", {}).get("n_channels", image.get("num_channels"))
    stated = image.get("num_channels")
    if isinstance(stated, int) and isinstance(n_channels, int) and stated != n_channels:
        draft.lack("input.channels", f"{METADATA} states {stated} input channels, the network has {n_channels}")
        return
    named = _numbered(image.get("channel_def"))
    if named is not None and len(named) == n_channels and not (n_channels == 1 and named == ["image"]):
        draft.put("input.channels", named)
    elif n_channels == 1:
        draft.put("input.channels", [draft.content.get("input", {}).get("modality", "image")])
    else:
        draft.lack("input.channels", f"{METADATA} does not name the {n_channels} input channels")
    divisor = _divisor(image.get("spatial_shape"))
    if divisor > 1:
        draft.put("input.size_rule", {"divisor": divisor})


def _divisor(shape: Any) -> int:
    """Of sizes such as ``16*n``; a plain number is the window of the training, which binds nobody (``_put_window``)."""
    found = [re.fullmatch(r"\s*(\d{1,4})\s*\*\s*n\s*", str(size)) for size in _as_list(shape)]
    return max((int(one[1]) for one in found if one), default=1)


def _numbered(value: Any) -> list[str] | None:
    """Names under "0", "1", … in their order."""
    if not isinstance(value, dict) or not value:
        return None
    keys = [str(index) for index in range(len(value))]
    plain = {str(key): item for key, item in value.items()}
    if set(plain) != set(keys) or not all(isinstance(item, str) for item in plain.values()):
        return None
    return [plain[key] for key in keys]


def plain_name(name: str, notes: list[str]) -> str:
    """A class name as cards allow it."""
    plain = re.sub(r"[^A-Za-z0-9 _.-]", "_", name).strip()
    plain = plain if plain[:1].isalnum() else f"class {plain}".strip()
    if plain != name:
        notes.append(f"class {name!r} is called {plain!r}")
    return plain[:64]


def _put_classes(metadata: ConfigText, config: ConfigText, draft: Draft) -> None:
    image = _format_of(metadata, "outputs", ("pred", "segmentation", "label"))
    n_outputs = draft.content.get("network", {}).get("n_outputs")
    names = next(
        (found for key in ("channel_def", "label_def") if (found := _numbered(image.get(key))) is not None), None
    )
    if names is None:
        draft.lack("classes", f"{METADATA} does not name the channels under {_CONTRACT}.outputs.pred.channel_def")
        return
    if n_outputs is not None and len(names) != n_outputs:
        draft.lack("classes", f"{METADATA} names {len(names)} channels, the network has {n_outputs} outputs")
        return
    has_background = names[0].casefold() in ("background", "bg")
    if not has_background and len(names) > 1 and _postprocesses(config, "softmax", "argmax"):
        draft.lack(
            "classes",
            f"{config.name} takes one class a voxel (softmax or argmax), but {METADATA} calls none of the channels "
            f"background (the first is {names[0]!r}); state classes and output",
        )
        return
    draft.put("classes", [plain_name(name, draft.notes) for name in names[has_background:]])
    draft.put("output", "softmax" if has_background else "sigmoid")
    if has_background and _postprocesses(config, "sigmoid"):
        draft.notes.append("the bundle applies a sigmoid to channels of which the first is background")


def _postprocesses(config: ConfigText, *options: str) -> bool:
    """Whether one of the transforms of the output has one of these switched on."""
    steps = config.content.get("postprocessing")
    steps = steps.get("transforms") if isinstance(steps, dict) else steps
    found = [step.get(option) for step in _as_list(steps) if isinstance(step, dict) for option in options]
    return any(value is True or (isinstance(value, list) and True in value) for value in found)


def _put_padding(config: ConfigText, draft: Draft) -> None:
    inferer = config.content.get("inferer")
    if isinstance(inferer, dict) and inferer.get("padding_mode") in ("replicate", "edge"):
        rule = draft.content.setdefault("input", {}).setdefault("size_rule", {})
        rule["padding"] = "edge"


def _put_window(metadata: ConfigText, config: ConfigText, draft: Draft) -> None:
    """What the network is given at once: the inferer's window, else the shape of images that are never cut."""
    try:
        window = config.resolve("inferer", "roi_size")
    except (KeyError, SourceError):
        window = None
    image = _format_of(metadata, "inputs", ("image",))
    whole = image.get("spatial_shape") if image.get("is_patch_data") is False else None
    put_trained_window(draft, [window] * 3 if isinstance(window, int) else window, whole)


def put_trained_window(draft: Draft, *stated: Any) -> None:
    """Set the first of these that is three sizes; -1 (the whole axis) and ``16*n`` tell no size."""
    lists = [window for window in stated if isinstance(window, list) and len(window) == 3]
    windows = [window for window in lists if all(type(one) is int and 1 <= one <= MAX_VOXELS for one in window)]
    if windows:
        draft.put("input.trained_window_vox", windows[0])


def _put_texts(files: PackedFiles, metadata: ConfigText, draft: Draft) -> None:
    stem = files.root.stem if files.root.is_file() else files.root.resolve().name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:64] or "bundle"
    draft.put("name", name if name[0].isalnum() else f"bundle{name}"[:64])
    draft.put("licence", _licence(files, metadata))
    references = [str(item) for item in _as_list(metadata.content.get("references")) if str(item).strip()]
    authors = metadata.content.get("authors")
    draft.put("citation", " | ".join(references) or f"not stated; authors: {authors or 'not stated'}")


def _licence(files: PackedFiles, metadata: ConfigText) -> str:
    stated = metadata.content.get("license") or metadata.content.get("licence")
    if isinstance(stated, str) and stated.strip():
        return stated.strip()
    name = next((name for name in files.names() if re.fullmatch(r"(docs/)?LICEN[CS]E(\.(txt|md))?", name, re.I)), None)
    if name is not None:
        text = files.read(name).decode("utf-8", errors="replace")
        found = next((licence for words, licence in _LICENCES if words.casefold() in text.casefold()), None)
        return found or f"see {name} in the bundle"
    return f"not stated in the bundle; {metadata.content.get('copyright') or 'no copyright stated'}"


def find_weights(files: PackedFiles, config: ConfigText | None = None) -> str:
    """Path of a bundle's weights: ``models/model.*``, else the one its loader names, else the only one there is.

    Raises:
        WeightsError: There are none, several, or only TorchScript.
    """
    names = files.names()
    found = next((name for name in _WEIGHTS if name in names), None)
    if found is not None:
        return found
    there = [name for name in names if name.startswith("models/") and name.endswith(_SUFFIXES)]
    loaded = [f"models/{name}" for name in _loaded_names(config.content)] if config is not None else []
    chosen = [name for name in loaded if name in there] or there
    if len(set(chosen)) == 1:
        return chosen[0]
    if chosen:
        raise WeightsError(
            f"{files.root}: has several weights ({', '.join(sorted(set(chosen)))}); keep one of them as models/model.pt"
        )
    script = next((name for name in names if name.endswith(".ts")), None)
    if script is not None:
        raise WeightsError(
            f"{files.root}: {script} is TorchScript, which is code and is not run; ask its maker for models/model.pt, "
            "or save the state_dict() of its network as safetensors on an isolated machine"
        )
    raise WeightsError(f"{files.root}: has no models/model.pt or models/model.safetensors; fetch the whole bundle")


def _loaded_names(content: Any) -> list[str]:
    """File names at the end of every ``load_path``; the name is read, the expression is not."""
    found: list[str] = []
    waiting = [content]
    while waiting and len(found) < 16:
        value = waiting.pop()
        if isinstance(value, dict):
            match = _LOADED.search(str(value.get("load_path", "")))
            found += [match[1]] if match else []
            waiting += [item for item in value.values() if isinstance(item, dict | list)]
        elif isinstance(value, list):
            waiting += [item for item in value if isinstance(item, dict | list)]
    return found
