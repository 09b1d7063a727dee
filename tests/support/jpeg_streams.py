"""JPEG streams that no installed library writes: lossless (process 14) and 12-bit extended (process 4); T.81.

Plain and slow, for tiny images. Huffman tables give all symbols one length, so a table is a list of symbols.
"""

from __future__ import annotations

import struct

import numpy as np
from scipy.fft import dctn

LOSSLESS_SYMBOLS = tuple(range(17))
_DC_SYMBOLS = tuple(range(16))
# run length in the high four bits, size in the low ones; end of block, 16 zeros, and all pairs
_AC_SYMBOLS = (0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 15)))
_CODE_LENGTHS = {LOSSLESS_SYMBOLS: 5, _DC_SYMBOLS: 5, _AC_SYMBOLS: 8}


class _Bits:
    """Bits, most significant first, with a zero byte after each 0xFF."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def put(self, value: int, length: int) -> None:
        if length:
            self._text.append(format(value, f"0{length}b"))

    def symbol(self, symbols: tuple[int, ...], symbol: int) -> None:
        self.put(symbols.index(symbol), _CODE_LENGTHS[symbols])

    def difference(self, value: int, size: int) -> None:
        """The bits that follow a size category (T.81 F.1.2.1)."""
        self.put(value if value >= 0 else value + (1 << size) - 1, size)

    def content(self) -> bytes:
        text = "".join(self._text)
        text += "1" * (-len(text) % 8)
        packed = int(text, 2).to_bytes(len(text) // 8, "big")
        return packed.replace(b"\xff", b"\xff\x00")


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _huffman_table(kind: int, symbols: tuple[int, ...]) -> bytes:
    counts = [0] * 16
    counts[_CODE_LENGTHS[symbols] - 1] = len(symbols)
    return _segment(0xC4, bytes([kind << 4, *counts, *symbols]))


def encode_lossless(pixels: np.ndarray, precision: int, predictor: int = 1) -> bytes:
    """JPEG lossless of one component.

    Args:
        pixels: (rows, columns), stored values as non-negative numbers below 2**precision.
        precision: Bits, 2 to 16.
        predictor: Selection value: 1 left, 4 left + above - corner, 7 mean of left and above.
    """
    rows, columns = pixels.shape
    values = pixels.astype(np.int64)
    assert values.min() >= 0
    assert values.max() < 1 << precision
    bits = _Bits()
    for r in range(rows):
        for c in range(columns):
            left, above = int(values[r, c - 1]), int(values[r - 1, c])
            if r == 0:
                guess = left if c else 1 << precision - 1
            elif c == 0:
                guess = above
            else:
                corner = int(values[r - 1, c - 1])
                guess = {1: left, 4: left + above - corner, 7: (left + above) >> 1}[predictor]
            difference = (int(values[r, c]) - guess) & 0xFFFF
            if difference > 0x8000:
                difference -= 0x10000
            size = abs(difference).bit_length()
            bits.symbol(LOSSLESS_SYMBOLS, size)
            if size < 16:
                bits.difference(difference, size)
    return b"".join(
        (
            b"\xff\xd8",
            _huffman_table(0, LOSSLESS_SYMBOLS),
            _segment(0xC3, struct.pack(">BHHB3B", precision, rows, columns, 1, 1, 0x11, 0)),
            _segment(0xDA, bytes([1, 1, 0x00, predictor, 0, 0x00])),
            bits.content(),
            b"\xff\xd9",
        )
    )


def _zigzag() -> list[tuple[int, int]]:
    cells = [(row, column) for row in range(8) for column in range(8)]
    return sorted(cells, key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else cell[1]))


def encode_extended(pixels: np.ndarray) -> bytes:
    """12-bit sequential DCT of one component with quantisation 1: the error is that of rounding coefficients.

    Args:
        pixels: (rows, columns), 0 to 4095.
    """
    rows, columns = pixels.shape
    padded = np.pad(pixels.astype(np.float64), ((0, -rows % 8), (0, -columns % 8)), mode="edge") - 2048
    bits = _Bits()
    previous = 0
    order = _zigzag()
    for r in range(0, padded.shape[0], 8):
        for c in range(0, padded.shape[1], 8):
            # the orthonormal transform is the one of T.81 A.3.3
            block = np.rint(dctn(padded[r : r + 8, c : c + 8], norm="ortho")).astype(int)
            numbers = [int(block[cell]) for cell in order]
            difference, previous = numbers[0] - previous, numbers[0]
            size = abs(difference).bit_length()
            bits.symbol(_DC_SYMBOLS, size)
            bits.difference(difference, size)
            _put_coefficients(bits, numbers[1:])
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xDB, bytes([0, *([1] * 64)])),
            _segment(0xC1, struct.pack(">BHHB3B", 12, rows, columns, 1, 1, 0x11, 0)),
            _huffman_table(0, _DC_SYMBOLS),
            _huffman_table(1, _AC_SYMBOLS),
            _segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0x00])),
            bits.content(),
            b"\xff\xd9",
        )
    )


def _put_coefficients(bits: _Bits, numbers: list[int]) -> None:
    zeros = 0
    last = max((index for index, number in enumerate(numbers) if number), default=-1)
    for number in numbers[: last + 1]:
        if number == 0:
            zeros += 1
            continue
        for _ in range(zeros // 16):
            bits.symbol(_AC_SYMBOLS, 0xF0)
        size = abs(number).bit_length()
        bits.symbol(_AC_SYMBOLS, zeros % 16 << 4 | size)
        bits.difference(number, size)
        zeros = 0
    if last < len(numbers) - 1:
        bits.symbol(_AC_SYMBOLS, 0x00)
