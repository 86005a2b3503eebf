"""Completions of many prompts: with vLLM where it is installed, otherwise with transformers."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ktae.extras import require


@dataclass(frozen=True)
class Sampling:
    """How to sample."""

    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0  # the smallest set of tokens of at least this probability; 1 keeps all
    max_tokens: int = 3072  # at most so many generated tokens, the end token included
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be at least 0 and finite, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")


@dataclass(frozen=True)
class Completion:
    """A generated text without special tokens, its tokens, the end token included, and whether the limit cut it off."""

    text: str
    length: int
    truncated: bool


def render(tokenizer: Any, problem: str, system: str) -> str:
    """A problem as the model reads it: through its chat template, or as it is for a model without one."""
    if tokenizer.chat_template is None:
        return problem
    messages = [{"role": "system", "content": system}] if system else []
    return as_text(tokenizer, [*messages, {"role": "user", "content": problem}])


def as_text(tokenizer: Any, prompt: Any, how: dict[str, Any] | None = None) -> str:
    """Chat messages through the chat template, with `how` as its keyword arguments; a text as it is."""
    if isinstance(prompt, str):
        return prompt
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **(how or {}))


def plan_batches(lengths: Sequence[int], max_tokens: int, budget: int) -> list[list[int]]:
    """The indices of prompts of so many tokens, in batches of similar length, longest first, where memory is shortest.

    A batch comes to at most `budget` tokens, prompts, padding and `max_tokens` of each completion together, unless a
    single prompt is longer.
    """
    batches: list[list[int]] = []
    widest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * (widest + max_tokens) > budget:
            batches.append([])
            widest = lengths[index]
        batches[-1].append(index)
    return batches


class TransformersBackend:
    """Generates with transformers on the model's device; `end_ids` and `not_used` are those of `_split_settings`."""

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval()
        # LoRA's wrapper would keep the settings of one call for the next.
        self._generator = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.end_ids, self.not_used = _split_settings(self._generator.generation_config, tokenizer)

    @torch.no_grad()
    def complete(
        self, texts: list[str], sampling: Sampling, seeds: Sequence[int], *, special_tokens: bool = False
    ) -> list[Completion]:
        """One completion of each text; torch's generators and the model's generation settings stay as they were.

        `seeds` has one a text, and all draws come from one generator, which gets the first; that of `sampling` is not
        used. `special_tokens` lets the tokenizer add its own, as it should where no chat template has.
        """
        how: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            how |= {"temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        config = require("transformers", extra="train").GenerationConfig(
            eos_token_id=self.end_ids or None, pad_token_id=self.tokenizer.pad_token_id, **how
        )
        inputs = self.tokenizer(
            texts, padding=True, return_tensors="pt", return_token_type_ids=False, add_special_tokens=special_tokens
        ).to(self.model.device)
        own = self._generator.generation_config
        try:
            self._generator.generation_config = config  # transformers fills what an argument leaves open from here
            with torch.random.fork_rng():
                torch.manual_seed(seeds[0])
                tokens = self._generator.generate(**inputs, generation_config=config)
        finally:
            self._generator.generation_config = own
        tokens = tokens[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(tokens, torch.tensor(self.end_ids, dtype=torch.long, device=tokens.device))
        lengths = (ended.cumsum(dim=1) - ended.long() == 0).sum(dim=1).tolist()
        truncated = (~ended.any(dim=1)).tolist()
        decoded = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return list(map(Completion, decoded, lengths, truncated))


class VllmBackend:
    """As `TransformersBackend`; written from vLLM's documentation and its own `SamplingParams` (0.33), not run."""

    name = "vllm"

    def __init__(self, path: str, tokenizer: Any, dtype: str) -> None:
        transformers = require("transformers", extra="train")
        self.tokenizer = tokenizer
        try:
            config = transformers.GenerationConfig.from_pretrained(path)
        except OSError:  # the checkpoint has none
            config = transformers.GenerationConfig.from_model_config(transformers.AutoConfig.from_pretrained(path))
        self.end_ids, self.not_used = _split_settings(config, tokenizer)
        self._vllm = importlib.import_module("vllm")
        # "vllm": no settings from the checkpoint.
        self._engine = self._vllm.LLM(model=path, dtype=dtype, generation_config="vllm")

    def complete(
        self, texts: list[str], sampling: Sampling, seeds: Sequence[int], *, special_tokens: bool = False
    ) -> list[Completion]:
        """As `TransformersBackend.complete`, but each text's draws are its own: they depend on its seed alone."""
        ids = self.tokenizer(texts, add_special_tokens=special_tokens)["input_ids"]
        how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
        parameters = [self._vllm.SamplingParams(**how, stop_token_ids=self.end_ids, seed=seed) for seed in seeds]
        outputs = self._engine.generate([{"prompt_token_ids": row} for row in ids], parameters, use_tqdm=False)
        firsts = [output.outputs[0] for output in outputs]
        return [Completion(out.text, len(out.token_ids), out.finish_reason == "length") for out in firsts]


def _split_settings(config: Any, tokenizer: Any) -> tuple[list[int], dict[str, Any]]:
    """The ids that end a completion, sorted (chat models often have several), and the checkpoint's other settings.

    Those are not used: with a repetition penalty of its own a model would be decoded differently from another.
    """
    ends = config.eos_token_id  # one id, several or None
    end_ids = sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})
    unused = re.compile(r"(?!_|output_|use_cache|\w+_(id|version)$)")
    return end_ids, {name: value for name, value in config.to_diff_dict().items() if unused.match(name)}


def choose_backend(backend: Literal["auto", "vllm", "transformers"], model: str) -> str:
    """`vllm` or `transformers`; `auto` is vLLM where it is installed and there is a GPU, but for a GGUF file."""
    installed, gguf = importlib.util.find_spec("vllm") is not None, model.endswith(".gguf")
    if backend == "vllm" and not installed:
        raise ValueError("--backend vllm: vLLM is not installed (pip install vllm)")
    if backend == "vllm" and gguf:
        raise ValueError(f"--backend vllm reads no GGUF files such as {model}; --backend transformers does")
    if backend != "auto":
        return backend
    return "vllm" if installed and torch.cuda.is_available() and not gguf else "transformers"


def generate(
    backend: TransformersBackend | VllmBackend,
    texts: Sequence[str],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    special_tokens: bool,
    budget: int | None = None,
) -> Iterator[dict[int, Completion]]:
    """Completes every text, chat templates applied, and yields the completions of each batch by the text's index.

    `special_tokens` is that of `complete`, `budget` that of `plan_batches`.
    """
    budget = budget or (131072 if torch.accelerator.is_available() else 16384)
    lengths = [len(ids) for ids in backend.tokenizer(list(texts))["input_ids"]]
    for batch in plan_batches(lengths, sampling.max_tokens, budget):
        chosen, their_seeds = [texts[i] for i in batch], [seeds[i] for i in batch]
        completions = backend.complete(chosen, sampling, their_seeds, special_tokens=special_tokens)
        yield dict(zip(batch, completions, strict=True))
