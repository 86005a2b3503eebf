"""Training runs: recipes, data, rewards, the quickstart task."""
