"""Evaluation: grading of answers."""
