"""Streams of High-throughput JPEG 2000, for which no installed library has an encoder.

Four each, of 13 x 10 pixels. ``LOSSLESS`` holds ``pattern(12)`` and ``LOSSY`` ``smooth()`` of ``transfer_syntaxes`` by
OpenJPH 0.9 (12 bits); ``SIGNED`` holds ``pattern(12) - 2048`` by OpenJPH 0.26 (16 bits, signed).
"""

from __future__ import annotations

import base64
import struct
import zlib


def _unpacked(text: str) -> list[bytes]:
    """Each stream follows its length."""
    blob = zlib.decompress(base64.b64decode(text))
    streams: list[bytes] = []
    while blob:
        (length,) = struct.unpack_from(">H", blob)
        streams.append(blob[2 : 2 + length])
        blob = blob[2 + length :]
    return streams


LOSSLESS = _unpacked(
    "eNpj+Prf/38gg6YDAxBwATEvAwKg8hm5GRn/BzBwMDABOez/gxh4gCxGBiYWFgfG/zEMXAoFFRUVBQUV/1MYxBgY/QtS87wCPBTCUosUDPQs9Q"
    "z0/k8AG8jA0MXA+H/yAcacBlsNqV//DpfvvRq1dt7/GkPrm5dEvjg11E5nOMAwi4F1yZVfmi9KGDx3HBJdVxB7/fUvBpc9Txp+WzAcYMw8wJh/"
    "gGHGren2Osk6yTcNGP7tj28QP8dczcC54gCzdkBoaOjWMCBxNQpI2P9Nrf+36UfNBGMbhuc1POylDP9vMvynv7enQL3NcHf/f23+tLrFZvM7//"
    "7nv7Z6sd6SFoZ/24G+XtnAmHGAYUrB1C+fOSuYTRlexhseE71euncd0OuPQV5/78BeAvR/lgPY/5Ou2+k0OH1WXGKg+Dc+vhEcAL3hBg6sQF+H"
    "ZoOItUD8FRYABQZ7GLZCAwDoJ7oHwDRYANS+r6jof7vMs9Nzyr/TC308f8MDYBUkAB6E2lT+4axwNmVoj/+IGgL3HdrBIQBJAR7idjpd/kmXiv"
    "8YGP6tWw8JAtHwgnpcQQBMA62wIGCifxBMhyV9aflPLuIr+uzrDyf/W+4dteEtw+clLYx1OxBhMCEw0egRs0azKYN6/MbjKGEw0ZEdKQwYwm11"
    "prCca5z6ySD5V918SBjMDttQhycMQqFhAAD3PkfO"
)
SIGNED = _unpacked(
    "eNpj+PHf/38gg6YDAxBwATEvAwKg8hn7GRn/BzBwMDCBpP4HMfAAWYwMTCwsDoz/Yxi4FDomTJjQ0dHxP4VBnIHRvyA1zyvAQyEstUjBQM/ITM"
    "9Y7/8EsIkMDD0MjP8nH2DQnWCrIfXr3+HyvVej1s77X2NoffOSyBenhtrpDAcYhB0YxCZc+aX5ooTBc8ch0XUFsddf/2Jw2fOk4bcFUFrXgoF1"
    "PwPDjFvT7XWSdZJvGjD82x/fIH6OuZqBc8UBZu2A0NDQrWFA4moUkLD/m1r/b9OPmgnGNgzPa3jYSxn+32RkGgCfT4P6vOHu/v/a/Gl1i83md/"
    "79z39t9WK9JS0M/7YDfSZqwMC6mIHBq2Dql8+cFcymDC/jDY+JXi/duw7o+8cg3793YC8BBYEHJAgmXbfTaXD6rLjEQPFvfHwjOAx6ww0cWIEe"
    "D80GEWuB+CssDAoM9jBshYUBywCEwQxYGNS+r6jof7vMs9Nzyr/TC308fyPCIAASBg9CbSr/cFY4mzK0x39EDYT7Du3gQIiABIKHuJ1Ol3/Spe"
    "I/BoZ/69ZDQkE0vKAeVygAU0IrLBRYByAUZsLygLT8JxfxFX329YeT/y33jtrwluHzkhbGuh1IwTAhMNHoEbNGsymDevzG4yjBMNGRHTkYGMJt"
    "daawnGuc+skg+VfdfEgwzA7bUIcnGEKhwQAADV1DWw=="
)
LOSSY = _unpacked(
    "eNpjePrf/38gg6YDAxBwATEvAwKg8hm5GRn/BzBwMDABOar/gxh4gCxGBiYWFgeG/zEMgkrlzzJMgbAiQSpBKn///xQGMQZG/4LUPK8AD4Ww1C"
    "IFAz1LPQO9/xPA5jIwFDMw/p98gDG3IfR7yPHs7zoXJ1zxtpbp2ev/v/AvQ+ycpQw/dzAcYFrEIFrA0OPyX/iX98MtDFGl7/8ynvy365s5wwFm"
    "hgOs6xlEE56kFRzjOTfj4r+IuP76f+H1P+Of74quYwj7W8Jl9S32bZYlw/+bDIPAm8nXXB+/3JVyNoTnxL/uFpfz3yv+Ud2bTwbMm0VQbzIUbz"
    "Vjzqib4ynhcuRQfV2a/I//dXpLgL7cPqx82ThFXf6Z452jt+sd2rb/0gz/cvgf0JeMldTzJQAYoi4a"
)
