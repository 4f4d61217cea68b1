"""Benchmarks: figures printed side by side, never tests that time."""
