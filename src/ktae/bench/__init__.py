"""Benchmarks of estimators, apart from training."""
