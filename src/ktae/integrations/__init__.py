"""One file a training framework; each adds key-token values to the framework's own rollout advantages."""
