"""Benchmarks: what is measured, with what material, against what."""
