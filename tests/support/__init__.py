"""Worlds, doubles and helpers that tests and benchmarks share."""
