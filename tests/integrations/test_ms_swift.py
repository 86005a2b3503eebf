"""ms-swift's hook in runs of `swift rlhf` on a tiny model, where it is installed.

Run as a program, `test_ms_swift.py FOLDER [arguments of swift rlhf]`, it is such a run: every generation's samples and
advantages, without and with key-token values, go to FOLDER/RANK.pt.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from processes import ONE, TWO, start
from tiny_model import model, prompts, tokenizer
from torch.nn.utils.rnn import pad_sequence

import ktae

GROUP = 4
CONFIG = ktae.KTAEConfig(scale=2.0)
GLOO = ["--ddp_backend", "gloo"]
RUNS = {
    # On two processes the middle one of three groups straddles both.
    "one process": (1, ONE, ["--per_device_train_batch_size", "4", "--steps_per_generation", "2"]),
    "two processes": (2, TWO, ["--per_device_train_batch_size", "2", "--steps_per_generation", "3", *GLOO]),
    "two updates": (1, ONE, ["--per_device_train_batch_size", "4", "--num_iterations", "2", "--loss_type", "dapo"]),
}
RECORDS = []
PLUGIN = """
import test_ms_swift
from swift import rlhf_trainers
from swift.rewards import ORM, orms

from ktae.integrations import ms_swift
from ktae.integrations.credit import TokenCredit


class HasA(ORM):
    def __call__(self, completions, **columns):
        return [float("a" in completion.split()) for completion in completions]


class Length(ORM):
    def __call__(self, completions, **columns):
        return [len(completion) / 100 for completion in completions]


orms["has_a"], orms["length"] = HasA, Length
rlhf_trainers.GRPOTrainer = test_ms_swift.noted(rlhf_trainers.GRPOTrainer, test_ms_swift.before)
ms_swift.install(TokenCredit(test_ms_swift.CONFIG), correctness_reward="HasA")
rlhf_trainers.GRPOTrainer = test_ms_swift.noted(rlhf_trainers.GRPOTrainer, test_ms_swift.after)
"""
SETTINGS = """
--rlhf_type grpo --model_type llama --template dummy --num_generations 4 --max_completion_length 10 --max_steps 4
--tuner_type full --torch_dtype float32 --attn_impl eager --use_vllm false --use_hf true --report_to none
--save_strategy no --reward_funcs length has_a
"""


def noted(trainer, note):
    class Noted(trainer):
        def _postprocess_batch(self, samples, batch_encoded_inputs):
            super()._postprocess_batch(samples, batch_encoded_inputs)
            note(self, samples, [encoded["grpo_batch"] for encoded in batch_encoded_inputs])

    return Noted


def before(trainer, samples, batches):
    trainer.plain = [batch.advantages.clone() for batch in batches]


def after(trainer, samples, batches):
    record = {"ids": [sample.response_token_ids for sample in samples], "plain": trainer.plain}
    record["rewards"] = trainer._rewards_per_func.clone()  # of all processes
    record |= {"masks": [one.completion_mask for one in batches], "advantages": [one.advantages for one in batches]}
    RECORDS.append(record)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_each_token_gets_its_own_value(tmp_path, name):
    pytest.importorskip("swift", reason="needs ms-swift 4.6, which needs a TRL below 1.0")
    processes, launch, options = RUNS[name]
    words = tokenizer()
    words.chat_template = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}"
    words.save_pretrained(tmp_path / "model")
    model().save_pretrained(tmp_path / "model")
    rows = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts(10)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    start([*launch, __file__, tmp_path, *options], environment=offline)

    informative = False
    for parts in zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)), strict=True):
        ids = [torch.tensor(flat(row)) for part in parts for row in part["ids"]]
        value_NT = ktae.key_token_values(
            pad_sequence(ids, batch_first=True),
            pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            parts[0]["rewards"][:, 1],
            torch.arange(len(ids)) // GROUP,
            config=CONFIG,
        )
        rows = iter(zip(value_NT, map(len, ids), strict=True))
        for part in parts:
            for mask, plain, advantages in zip(part["masks"], part["plain"], part["advantages"], strict=True):
                for row in range(len(mask)):
                    value_T, length = next(rows)
                    added = advantages[row] - plain[row]
                    torch.testing.assert_close(added[mask[row].bool()], value_T[:length], rtol=0, atol=1e-6)
                    assert not added[~mask[row].bool()].any()
        assert next(rows, None) is None
        informative |= bool((value_NT > 0.4).any() and (value_NT < -0.1).any())
    assert informative


def flat(ids):
    """Turns are lists of their own."""
    return [token for turn in ids for token in turn] if ids and isinstance(ids[0], list) else ids


if __name__ == "__main__":
    sys.modules["test_ms_swift"] = sys.modules["__main__"]  # the plugin's import is this very module
    from swift.pipelines import rlhf_main

    folder = Path(sys.argv[1])
    paths = {"model": "model", "dataset": "data.jsonl", "external_plugins": "plugin.py", "output_dir": "out"}
    files = [part for name, path in paths.items() for part in (f"--{name}", str(folder / path))]
    rlhf_main([*files, *SETTINGS.split(), *sys.argv[2:]])
    torch.save(RECORDS, folder / f"{os.environ.get('RANK', '0')}.pt")
