"""The data, the stacked models, the contestants and the frontier of `benchmarks/frontier.py`."""
