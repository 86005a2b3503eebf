"""The README.md beside a trained model: what it was made from, how, and what it scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ktae.extras import require
from ktae.files import json_lines
from ktae.train.recipe import ALGORITHMS, Recipe
from ktae.train.summary import as_markdown

_LINKS = {
    "GRPO": "https://arxiv.org/abs/2402.03300",
    "DAPO": "https://arxiv.org/abs/2503.14476",
    "KTAE": "https://arxiv.org/abs/2505.16826",
    "KTAE in context": "https://arxiv.org/abs/2505.16826",
}


def write_model_card(recipe: Recipe, algorithm: str, results: dict[str, Any], out: Path) -> None:
    """Writes `out/algorithm/model/README.md` from the run's records.

    Args:
        recipe: the run.
        algorithm: whose model it is.
        results: what `summarize` returned.
        out: the run's folder.
    """
    yaml = require("yaml", extra="train")
    label = ALGORITHMS[algorithm].label
    made = json_lines.read(out / "provenance.jsonl")[-1]
    front = {"library_name": "transformers", "tags": ["rlvr", *label.lower().split("+")]}
    if recipe.model.path.count("/") == 1 and not recipe.model.path.startswith(("python:", ".", "/")):
        front["base_model"] = recipe.model.path
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
    hardware = made["hardware"]
    devices = ", ".join(hardware["accelerators"]) or f"{hardware['cpu']}, {hardware['cpus']} CPUs"
    links = ", ".join(f"[{name}]({_LINKS[name]})" for name in label.split("+"))
    settings = yaml.safe_dump({**recipe.as_dict(), "algorithms": [algorithm]}, sort_keys=False)
    card = f"""---
{yaml.safe_dump(front, sort_keys=False)}---

# {recipe.name}: {label}

Trained from `{recipe.model.path}` on `{recipe.data.source}` with {links}, by ktae.

## Results

{as_markdown(recipe, results)}
## How it was made

* command: `{made["command"]}`
* commit: {made["commit"] or made["ktae_commit"] or "not in a git repository"}
* versions: {versions}
* hardware: {devices}; {made["processes"]} process(es)
* finished at update {results["policies"][algorithm].get("steps", "?")}

```yaml
{settings}```
"""
    (out / algorithm / "model" / "README.md").write_text(card)
