"""Grading: finding the final answer in a text, and comparing it with the accepted ones."""
