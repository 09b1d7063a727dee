"""Programs that tests need and that are no part of this package."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(words: str, variable: str) -> NoReturn:
    """Skip the test; or fail it where the environment says, by this variable, that the program must be there."""
    if os.environ.get(variable):
        pytest.fail(f"{words}, and {variable} is set")
    pytest.skip(words)
