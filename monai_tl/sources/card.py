"""A source folder and its card: what a pretrained network is, expects and gives. A finished model is one too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monai_tl.config import IntensityConfig, NetworkConfig, Spacing
from monai_tl.errors import ConfigError, SourceError
from monai_tl.faults import fault_lines, parse_yaml
from monai_tl.files import sha256_file, write_bytes, write_text
from monai_tl.records import SizeRule

if TYPE_CHECKING:
    from torch import Tensor

CARD_FILE = "card.yaml"
WEIGHTS_FILE = "weights.safetensors"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""A plain name: a card cannot point outside its folder."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$", max_length=64)]
OutputKind = Literal["softmax", "sigmoid"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardNetwork(_Part):
    """A network of the table of builders.

    Attributes:
        n_channels: Input channels.
        n_outputs: Output channels; with softmax the background is the first.
    """

    name: str
    arguments: dict[str, object] = {}
    n_channels: int = Field(ge=1, le=1024)
    n_outputs: int = Field(ge=1, le=4096)

    @property
    def config(self) -> NetworkConfig:
        """Name and arguments, as the builders take them."""
        return NetworkConfig(name=self.name, arguments=dict(self.arguments))


class CardWeights(_Part):
    """The weights file beside the card, and the sha256 of its bytes."""

    file: FileName
    sha256: Sha256


class CardInput(_Part):
    """The input contract.

    Attributes:
        modality: As DICOM has it: ``CT``, ``MR``.
        channels: What each input channel holds, e.g. ``[T1]``.
        orientation: Axis codes of the array's axes, e.g. ``RAS``.
        spacing_mm: Voxel size along I, J, K, mm.
        intensity: How stored values become network input.
        size_rule: Sizes the network accepts.
    """

    modality: str = Field(min_length=1, max_length=16)
    channels: tuple[str, ...] = Field(min_length=1)
    orientation: str
    spacing_mm: Spacing
    intensity: IntensityConfig
    size_rule: SizeRule = SizeRule()

    @model_validator(mode="after")
    def _orientation_is_known(self) -> Self:
        axes = [next((axis for axis in ("LR", "PA", "IS") if letter in axis), "") for letter in self.orientation]
        if len(axes) != 3 or set(axes) != {"LR", "PA", "IS"}:
            raise ValueError(f"orientation {self.orientation!r} is no axis code such as RAS")
        return self


class Card(_Part):
    """``card.yaml``.

    Attributes:
        licence: Of the weights, as SPDX or in words.
        citation: What to cite.
        classes: Foreground classes in the order of the outputs.
        output: ``softmax`` (background first) or ``sigmoid`` (each class for itself, no background).
        covers: Layer groups that the weights hold, e.g. an encoder's; None for the whole network.
        rebuild: The command that makes the weights anew.
        notes: What a user should know.
    """

    card_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    network: CardNetwork
    weights: CardWeights
    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    input: CardInput
    classes: tuple[ClassName, ...] = Field(min_length=1)
    output: OutputKind = "softmax"
    covers: tuple[str, ...] | None = None
    rebuild: str | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [name.casefold() for name in self.classes]
        if len(set(names)) != len(names) or "background" in names:
            raise ValueError("classes must differ and none may be 'background'")
        expected = len(self.classes) + (self.output == "softmax")
        if self.network.n_outputs != expected:
            raise ValueError(
                f"network.n_outputs is {self.network.n_outputs}, but {len(self.classes)} classes with {self.output} "
                f"need {expected}"
            )
        if len(self.input.channels) != self.network.n_channels:
            raise ValueError(
                f"input.channels names {len(self.input.channels)}, but network.n_channels is {self.network.n_channels}"
            )
        return self


@dataclass(frozen=True)
class Source:
    """A source folder that has been read and found whole.

    Attributes:
        card: What it says of itself.
        folder: Where it lies.
    """

    card: Card
    folder: Path

    @property
    def weights_path(self) -> Path:
        """The weights file; its bytes are checked against the card when it is loaded."""
        return self.folder / self.card.weights.file


def read_source(folder: Path) -> Source:
    """Read a source folder's card. The weights are not opened yet.

    Raises:
        SourceError: The folder or card is missing, the card has faults (all are listed), or the weights are missing.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise SourceError(f"{folder} is no source: it has no {CARD_FILE}; give the folder that holds one")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), CARD_FILE)
    except (ConfigError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}; write it anew") from None
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        raise SourceError(_listed(path, fault_lines(error, Card))) from None
    if not (folder / card.weights.file).is_file():
        fault = f"weights.file: {card.weights.file} is not beside the card; copy it there"
        raise SourceError(_listed(path, [fault]))
    return Source(card, folder)


def _listed(path: Path, faults: list[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{path}: {count}; correct the card\n" + "\n".join(f"  {fault}" for fault in faults)


def write_source(folder: Path, card: Card, state: Mapping[str, Tensor]) -> Source:
    """Write a source folder: equal input gives equal bytes.

    Args:
        folder: Made if missing; other files in it stay.
        card: Its weights entry is replaced by what is written.
        state: Name → tensor; of tensors that share memory the first is kept.

    Returns:
        The source as it is on disk.
    """
    from safetensors.torch import save

    unique: dict[tuple[object, ...], str] = {}
    for name, tensor in state.items():
        # empty tensors all lie at address 0 and are not one
        where = tensor.data_ptr() or name
        unique.setdefault((where, tensor.shape, tensor.stride(), tensor.dtype), name)
    # a contiguous copy each: safetensors refuses views of one another
    plain = {name: _plain_copy(state[name]) for name in sorted(unique.values())}
    write_bytes(folder / WEIGHTS_FILE, save(plain))
    weights = CardWeights(file=WEIGHTS_FILE, sha256=sha256_file(folder / WEIGHTS_FILE))
    written = card.model_copy(update={"weights": weights})
    text = yaml.safe_dump(written.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    write_text(folder / CARD_FILE, text)
    return Source(written, folder)


def _plain_copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().cpu().contiguous()
    return copy.clone() if copy.data_ptr() == tensor.data_ptr() else copy
