"""The weights of a source, wherever its kind keeps them."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext

from monai_tl.files import sha256_file
from monai_tl.sources.card import Source
from monai_tl.sources.nnunet_weights import records_left_out
from monai_tl.sources.packed_files import MAX_WEIGHTS, open_zip
from monai_tl.sources.weights import State, load_state, parse_state


def open_weights(source: Source) -> State:
    """Read a source's weights as plain tensors; nothing in them runs.

    Raises:
        WeightsError: They have another hash than the card says, are damaged, or would run code.
        SourceError: The zip file that holds them has changed or is damaged.
    """
    sha256 = source.card.weights.sha256
    with records_left_out() if source.kind == "nnunet" else nullcontext():
        if source.weights_name is not None and source.folder.is_file():
            content = open_zip(source.folder).read(source.weights_name, MAX_WEIGHTS)
            return parse_state(content, source.weights_path, sha256)
        return load_state(source.weights_path, sha256)


def hash_weights(source: Source) -> str:
    """Hex sha256 of a source's weights as they are now, wherever they are.

    Raises:
        SourceError: The zip file that holds them is damaged.
    """
    if source.weights_name is not None and source.folder.is_file():
        return hashlib.sha256(open_zip(source.folder).read(source.weights_name, MAX_WEIGHTS)).hexdigest()
    return sha256_file(source.weights_path)
