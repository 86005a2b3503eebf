"""Which runs make up the experiment."""

from run import Run

PLANS = {
    "try": [Run(task, method, 0, {"updates": 20}) for task in ("chain",) for method in ("grpo", "dapo+oracle")],
}
