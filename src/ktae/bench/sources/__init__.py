"""Where the benchmark's rollouts come from: one module a task."""
