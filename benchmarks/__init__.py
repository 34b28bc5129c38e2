"""The benchmarks of subsetopt: ``python -m benchmarks --help``."""
