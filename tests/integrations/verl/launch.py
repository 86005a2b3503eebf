"""Starts verl's own command line on a model of 40,000 weights."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

HERE = Path(__file__).parent
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<end>{% endfor %}"
SETTINGS = """
data.train_batch_size=3 data.max_prompt_length=32 data.max_response_length=16 data.dataloader_num_workers=0
data.shuffle=False data.filter_overlong_prompts=False
actor_rollout_ref.model.use_remove_padding=False actor_rollout_ref.model.enable_gradient_checkpointing=False
+actor_rollout_ref.model.override_config.attn_implementation=sdpa
actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.optim.lr=1e-2
actor_rollout_ref.actor.ppo_mini_batch_size=2 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4
actor_rollout_ref.actor.use_torch_compile=False actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
actor_rollout_ref.actor.fsdp_config.model_dtype=fp32 actor_rollout_ref.actor.fsdp_config.dtype=float32
actor_rollout_ref.rollout.name=hf actor_rollout_ref.rollout.n=4 actor_rollout_ref.rollout.dtype=float32
actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4 actor_rollout_ref.rollout.agent.num_workers=1
actor_rollout_ref.rollout.free_cache_engine=False
reward.num_workers=1 reward.custom_reward_function.name=compute_score
trainer.device=cpu trainer.nnodes=1 trainer.logger=[console] trainer.total_training_steps=2
trainer.val_before_train=False trainer.save_freq=-1 trainer.test_freq=-1
ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.include_dashboard=False
+ray_kwargs.ray_init.object_store_memory=200000000
transfer_queue.backend.SimpleStorage.num_data_storage_units=1
"""
ENVIRONMENT = """
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false RAY_DEDUP_LOGS=0
RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
"""


@dataclass
class Run:
    folder: Path
    returncode: int
    output: str

    def step(self, number):
        """What spy.py saved of an update."""
        return torch.load(self.folder / f"step_{number}.pt", weights_only=True)

    def server(self):
        """What hf_rollout.py logged."""
        return [json.loads(line) for line in (self.folder / "server.jsonl").read_text().splitlines()]


def make_inputs(folder):
    """A byte-level tokenizer, a model with random weights, and problems."""
    words = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words |= {"<pad>": len(words), "<end>": len(words) + 1}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": False}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # Some tokens are much more likely than others, so that rollouts share tokens.
    config = Qwen2Config(vocab_size=len(words), initializer_range=0.2, **small, **ends)
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    rows = [
        {
            "data_source": "parity",
            "prompt": [{"role": "user", "content": f"What is {number} plus {number}?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(2 * number)},
            "extra_info": {"index": number},
        }
        for number in range(30)
    ]
    pd.DataFrame(rows).to_parquet(folder / "problems.parquet")


def launch(inputs, folder, *settings, ranks=1, modules="cpu_platform,spy", **environment):
    """Runs `python -m verl.trainer.main_ppo`; its output goes to `folder`, and comes back."""
    command = [
        *(sys.executable, "-W", "ignore", "-m", "verl.trainer.main_ppo"),
        *SETTINGS.split(),
        *(f"data.{name}_files={inputs / 'problems.parquet'}" for name in ("train", "val")),
        f"actor_rollout_ref.model.path={inputs / 'model'}",
        f"reward.custom_reward_function.path={HERE / 'parity.py'}",
        f"trainer.n_gpus_per_node={ranks}",
        f"actor_rollout_ref.rollout.tensor_model_parallel_size={ranks}",  # one server, whatever the ranks
        f"+ray_kwargs.ray_init.num_gpus={ranks}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"hydra.run.dir={folder / 'hydra'}",
        *settings,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "VERL_USE_EXTERNAL_MODULES": modules,
        "KTAE_TEST_DIR": str(folder),
        **dict(setting.split("=") for setting in ENVIRONMENT.split()),
        **environment,
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400
    )
    (folder / "output.txt").write_text(done.stdout)
    return Run(folder, done.returncode, done.stdout)
