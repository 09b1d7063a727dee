"""The project against its peers and against the physical limit, side by side in one run: ``python -m benchmarks``."""
