"""Measures Rover against its peers. `tests/perf/run` is the entry; README.md beside it explains the tables."""
