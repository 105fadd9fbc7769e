"""Benchmarks of single compiled parts, by pytest-benchmark: `make bench-kernels`."""
