"""Evaluation: benchmarks answered, saved outputs graded again, and two evaluations compared."""
