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
from monai_tl.records import Fingerprint, SizeRule

if TYPE_CHECKING:
    from torch import Tensor

CARD_FILE = "card.yaml"
WEIGHTS_FILE = "weights.safetensors"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""A plain name: a card cannot point outside its folder."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$", max_length=64)]
MAX_VOXELS = 1 << 16
"""Along an axis; longer than any image."""
Voxels = Annotated[int, Field(ge=1, le=MAX_VOXELS)]
OutputKind = Literal["softmax", "sigmoid", "features"]
SourceKind = Literal["card", "run", "self-supervised", "bundle", "nnunet"]


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
        trained_window_vox: Window that the source was trained on, along the array's axes; None where nothing says it.
            Cases are held against it; windows are not made of it, since the network takes others.
    """

    modality: str = Field(min_length=1, max_length=16)
    channels: tuple[str, ...] = Field(min_length=1)
    orientation: str
    spacing_mm: Spacing
    intensity: IntensityConfig
    size_rule: SizeRule = SizeRule()
    trained_window_vox: tuple[Voxels, Voxels, Voxels] | None = None

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
        classes: Foreground classes in the order of the outputs; none for features.
        output: ``softmax`` (background first), ``sigmoid`` (each class for itself, no background), or ``features`` for
            a self-supervised network: its head, if it has one, is never taken over.
        covers: Layer groups that the weights hold, where they do not hold the whole body, e.g. the encoder's; the
            smallest share that must come across counts these alone. None for the whole network.
        rebuild: The command that makes the weights anew.
        fingerprint: Of the cases it was trained on, where they are known: numbers over all of them, see
            ``Fingerprint``. With it the shift to a target is measured.
        notes: What a user should know.
    """

    card_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    network: CardNetwork
    weights: CardWeights
    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    input: CardInput
    classes: tuple[ClassName, ...] = ()
    output: OutputKind = "softmax"
    covers: tuple[str, ...] | None = None
    rebuild: str | None = None
    fingerprint: Fingerprint | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_classes()
        if len(self.input.channels) != self.network.n_channels:
            raise ValueError(
                f"input.channels names {len(self.input.channels)}, but network.n_channels is {self.network.n_channels}"
            )
        return self

    def _check_classes(self) -> None:
        if self.output == "features":
            if self.classes:
                raise ValueError("features have no classes; leave classes out, or state softmax or sigmoid")
            return
        if not self.classes:
            raise ValueError("classes: name at least one, or state output: features")
        names = [name.casefold() for name in self.classes]
        if len(set(names)) != len(names) or "background" in names:
            raise ValueError("classes must differ and none may be 'background'")
        expected = len(self.classes) + (self.output == "softmax")
        if self.network.n_outputs != expected:
            raise ValueError(
                f"network.n_outputs is {self.network.n_outputs}, but {len(self.classes)} classes with {self.output} "
                f"need {expected}"
            )


@dataclass(frozen=True)
class Source:
    """A source that has been read and found whole.

    Attributes:
        card: What it says of itself, or what was read out of it.
        folder: Where it lies: a folder, or the zip file of a bundle.
        kind: What it was recognised as.
        weights_name: Path of the weights within the folder or zip file; None: beside the card, under its name there.
        notes: What was assumed or left out when it was read.
    """

    card: Card
    folder: Path
    kind: SourceKind = "card"
    weights_name: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def weights_path(self) -> Path:
        """The weights file, for messages where it lies in a zip file; its bytes are checked when it is loaded."""
        return self.folder / (self.weights_name or self.card.weights.file)


def read_source(path: Path) -> Source:
    """Recognise a source and read what it says of itself.

    Args:
        path: A folder with a card, a model of a finished run, a MONAI bundle (folder or zip), or an nnU-Net v2
            results folder; see docs/sources.md.

    Raises:
        SourceError: It is none of these, or has faults (all are listed), or needs code to be understood.
        WeightsError: The weights are missing or are not those that were pulled.
    """
    # the readers of the kinds build cards, so they can be imported only after this module
    from monai_tl.sources.kinds import read_kind

    return read_kind(path)


def read_card(folder: Path) -> Source:
    """Read a source folder's card. The weights are not opened yet.

    Raises:
        SourceError: The card has faults (all are listed), or the weights are missing.
    """
    path = folder / CARD_FILE
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), CARD_FILE)
    except (ConfigError, UnicodeDecodeError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}; write it anew") from None
    card = check_card(content, path)
    if not (folder / card.weights.file).is_file():
        fault = f"weights.file: {card.weights.file} is not beside the card; copy it there"
        raise SourceError(_listed(path, [fault]))
    return Source(card, folder, "self-supervised" if card.output == "features" else "card")


_CORRECT = "correct the card"


def check_card(content: object, path: Path, remedy: str = _CORRECT) -> Card:
    """A card of parsed YAML.

    Args:
        content: Parsed.
        path: Where it is from, for messages.
        remedy: What to do about faults.

    Raises:
        SourceError: It has faults; all are listed under the path.
    """
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        raise SourceError(_listed(path, fault_lines(error, Card), remedy)) from None


def _listed(path: Path, faults: list[str], remedy: str = _CORRECT) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{path}: {count}; {remedy}\n" + "\n".join(f"  {fault}" for fault in faults)


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
