"""For all tests: those that read what a stage tells of its cases read every line of it."""

from __future__ import annotations

import os

# the few lines of a log, bars and JSON have tests of their own, which take this away
os.environ["MONAI_TL_PROGRESS"] = "all"
