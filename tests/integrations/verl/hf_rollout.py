"""A rollout server on CPU: transformers' generate, one request at a time, the weights sent by verl after each update.

It writes what it generates and what it receives to $KTAE_TEST_DIR/server.jsonl, a row a request or weight update.
The n-th sample of a prompt depends on the prompt, n and the weights alone.
"""

import json
import os
import zlib
from collections import Counter
from pathlib import Path

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator


class Server:
    def __init__(self, path, response_length):
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        self.response_length = response_length
        self.version = None
        self.samples = Counter()

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        number = self.samples[tuple(prompt_ids)]
        self.samples[tuple(prompt_ids)] += 1
        torch.manual_seed(zlib.crc32(repr((prompt_ids, number)).encode()))
        prompt, temperature = torch.tensor([prompt_ids]), sampling_params["temperature"]
        how = {"do_sample": True, "top_k": 0, "temperature": temperature, "max_new_tokens": self.response_length}
        how |= {"output_logits": True, "return_dict_in_generate": True, "attention_mask": torch.ones_like(prompt)}
        with torch.no_grad():
            output = self.model.generate(prompt, **how)
        token_ids = output.sequences[0, len(prompt_ids) :].tolist()
        logits = torch.cat(output.logits) / temperature
        log_probs = logits.log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None])[:, 0]
        # Asked to, it pretends that every third token was less probable, for rollout correction to object to.
        if os.environ.get("KTAE_TEST_MISMATCH"):
            log_probs[::3] -= 1.0
        self._log(prompt_ids=prompt_ids, token_ids=token_ids, version=self.version)
        more = {"stop_reason": "completed", "extra_fields": {"global_steps": self.version}}
        return TokenOutput(token_ids=token_ids, log_probs=log_probs.tolist(), **more)

    async def load(self, weights, version):
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(weights, strict=False)
        after = self.model.state_dict()
        moved = max((after[name] - before[name]).abs().max().item() for name in weights)
        self.version = version
        self._log(update=version, tensors=sorted(weights), moved=moved)

    def _log(self, **row):
        with (Path(os.environ["KTAE_TEST_DIR"]) / "server.jsonl").open("a") as file:
            print(json.dumps(row), file=file)

    async def _nothing(self, *args, **kwargs):
        """A server without a cache or a queue has nothing to give back or to stop."""

    wake_up = sleep = abort_all_requests = resume_generation = _nothing
    clear_kv_cache = release_kv_cache = resume_kv_cache = _nothing


class Replica(RolloutReplica):
    async def launch_servers(self):
        name = f"hf_server_{self.replica_rank}"
        server = ray.remote(Server).options(name=name, max_concurrency=1000, num_cpus=0)
        self._server_handle = server.remote(self.model_config.path, self.config.response_length)
        self._server_address = name
        self.servers.append(self._server_handle)


class Adapter(BaseRollout):
    """Runs in the training processes; the first of each replica sends the weights."""

    async def resume(self, *tags):
        """It gave nothing back."""

    release = resume

    async def update_weights(self, weights, global_steps=None, **kwargs):
        received = {}
        async for name, value in ensure_async_iterator(weights):  # all ranks: gathering a tensor is collective
            received[name] = value.detach().float().clone()
        rank, size = int(os.environ["RANK"]), self.config.tensor_model_parallel_size
        if rank % size == 0:
            await ray.get_actor(f"hf_server_{rank // size}").load.remote(received, global_steps)
