"""Language models: loading them, and what they generate."""
