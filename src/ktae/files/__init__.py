"""Rows from files: formats, columns, tokens."""
