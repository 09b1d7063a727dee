"""Text in pixel bytes is found in every usual encoding; pixels that read so by chance are not."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from monai_tl.dicom.pixel_text import holds_word, pixel_words


def patient(**tags: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in {"PatientName": "Müller^Jörgen", "PatientID": "71934", **tags}.items():
        setattr(dataset, keyword, value)
    return dataset


def grey() -> bytes:
    """256 x 256 pixels of 12 bits."""
    return np.random.default_rng(0).integers(0, 4096, 65536).astype("<u2").tobytes()


@pytest.mark.parametrize("word", ["Müller", "MÜLLER", "müller", "jörgen", "Jorgen", "71934"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize("place", [1000, 1001])
def test_a_word_is_found(word, encoding, is_native, place):
    text = word.encode(encoding)
    content = grey()[:place] + text + grey()[place + len(text) :]
    assert holds_word(content, pixel_words(patient()), is_native)
    assert not holds_word(grey(), pixel_words(patient()), is_native)


def test_short_words_are_not_looked_for():
    assert pixel_words(patient(PatientName="Li^Anna", PatientID="12")) == frozenset()
    assert pixel_words(patient(PatientName="Huber^Anna", PatientID="12")) == {"huber", "Huber"}


@pytest.mark.parametrize("is_words", [False, True])
def test_grey_values_that_spell_a_word_by_chance_pass(is_words):
    """Noise of the seven values that are letters of the word holds it many times over."""
    letters = np.frombuffer(b"abcdehu", np.uint8)
    noise = np.random.default_rng(1).choice(letters, 1 << 19)
    content = (noise.astype("<u2") if is_words else noise).tobytes()
    word = "bache"
    assert word.encode("utf-16-le" if is_words else "ascii") in content
    assert not holds_word(content, frozenset((word,)), is_native=True)


def test_noise_of_a_compressed_stream_holds_no_word():
    content = np.random.default_rng(2).integers(0, 256, 1 << 22).astype(np.uint8).tobytes()
    words = frozenset(f"{first}{second}berg" for first in "abcdefghij" for second in "aeiou")
    assert not holds_word(content, words, is_native=False)
