"""A run of ms-swift on a tiny model, for test_ms_swift.py: `ms_swift_worker.py FOLDER [arguments of swift rlhf]`.

Every generation's samples and advantages, without and with key-token values, go to FOLDER/RANK.pt.
"""

import json
import os
import sys
from pathlib import Path

import torch
from tiny_model import model, prompts, tokenizer

CONFIG = {"scale": 2.0}
RECORDS = []
PLUGIN = """
import ms_swift_worker
from swift import rlhf_trainers
from swift.rewards import ORM, orms

from ktae import KTAEConfig
from ktae.integrations import ms_swift
from ktae.integrations.credit import TokenCredit


class HasA(ORM):
    def __call__(self, completions, **columns):
        return [float("a" in completion.split()) for completion in completions]


class Length(ORM):
    def __call__(self, completions, **columns):
        return [len(completion) / 100 for completion in completions]


orms["has_a"], orms["length"] = HasA, Length
rlhf_trainers.GRPOTrainer = ms_swift_worker.before(rlhf_trainers.GRPOTrainer)
ms_swift.install(TokenCredit(KTAEConfig(**ms_swift_worker.CONFIG)), correctness_reward="HasA")
rlhf_trainers.GRPOTrainer = ms_swift_worker.after(rlhf_trainers.GRPOTrainer)
"""


def before(trainer):
    class Before(trainer):
        def _postprocess_batch(self, samples, batch_encoded_inputs):
            super()._postprocess_batch(samples, batch_encoded_inputs)
            self.plain = [encoded["grpo_batch"].advantages.clone() for encoded in batch_encoded_inputs]

    return Before


def after(trainer):
    class After(trainer):
        def _postprocess_batch(self, samples, batch_encoded_inputs):
            super()._postprocess_batch(samples, batch_encoded_inputs)
            batches = [encoded["grpo_batch"] for encoded in batch_encoded_inputs]
            RECORDS.append(
                {
                    "ids": [sample.response_token_ids for sample in samples],
                    "rewards": self._rewards_per_func.clone(),  # of all processes
                    "masks": [batch.completion_mask for batch in batches],
                    "plain": self.plain,
                    "advantages": [batch.advantages for batch in batches],
                }
            )

    return After


def write_files(folder):
    words = tokenizer()
    words.chat_template = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}"
    words.save_pretrained(folder / "model")
    model().save_pretrained(folder / "model")
    rows = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts(10)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plugin.py").write_text(PLUGIN)


if __name__ == "__main__":
    sys.modules["ms_swift_worker"] = sys.modules["__main__"]  # the plugin's import is this very module
    from swift.pipelines import rlhf_main

    folder = Path(sys.argv[1])
    settings = {
        "rlhf_type": "grpo",
        "model": folder / "model",
        "model_type": "llama",
        "template": "dummy",
        "dataset": folder / "data.jsonl",
        "external_plugins": folder / "plugin.py",
        "output_dir": folder / "out",
        "num_generations": 4,
        "max_completion_length": 10,
        "max_steps": 4,
        "tuner_type": "full",
        "torch_dtype": "float32",
        "attn_impl": "eager",
        "use_vllm": "false",
        "use_hf": "true",
        "report_to": "none",
        "save_strategy": "no",
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    rlhf_main([*options, "--reward_funcs", "length", "has_a", *sys.argv[2:]])
    torch.save(RECORDS, folder / f"{os.environ.get('RANK', '0')}.pt")
