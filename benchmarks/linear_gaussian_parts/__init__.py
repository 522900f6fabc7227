"""The cells and the contestants of `benchmarks/linear_gaussian.py`."""
