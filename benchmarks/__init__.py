"""Sightline beside its peers, in the same run, with correctness first: `python -m benchmarks.run --help`."""
