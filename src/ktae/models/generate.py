"""Completions of many prompts: with vLLM where it is installed, otherwise with transformers.

What a run produces depends on the model, the prompts and the settings, not on when it was interrupted: the work is cut
into batches beforehand, and each batch has a seed of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ktae.seeds import derived_seed


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: smallest set of tokens of at least this probability; 1 keeps all.
        max_tokens: at most so many generated tokens, the end token included.
        seed: of the draws.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 3072
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")


@dataclass(frozen=True)
class Completion:
    """A generated text.

    Attributes:
        text: without special tokens.
        length: generated tokens, the end token included.
        truncated: whether it was cut off at the limit.
    """

    text: str
    length: int
    truncated: bool


def render(tokenizer: Any, problem: str, system: str) -> str:
    """A problem as the model reads it: through its chat template, or as it is for a model without one."""
    if tokenizer.chat_template is None:
        return problem
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": problem})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def plan_batches(lengths: Sequence[int], max_tokens: int, budget: int) -> list[list[int]]:
    """Cuts prompts into batches of similar length.

    Args:
        lengths: tokens of each prompt.
        max_tokens: generated tokens at most.
        budget: tokens that a batch may come to, prompts, padding and completions together. A prompt that is longer
            by itself gets a batch of its own.

    Returns:
        The indices of each batch, the longest prompts first: what does not fit into memory shows at once.
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
    """Generates with transformers on whatever device there is."""

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        ends = model.generation_config.eos_token_id  # one id, several or None: chat models often have more than one
        ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._ends = torch.tensor(sorted(ends), device=model.device)

    @torch.no_grad()
    def complete(
        self, texts: list[str], sampling: Sampling, seed: int, *, special_tokens: bool = False
    ) -> list[Completion]:
        """One completion of each text; torch's global generators are left as they were.

        Args:
            texts: what the model reads.
            sampling: how; its own seed is not used.
            seed: of these draws.
            special_tokens: let the tokenizer add its special tokens, as it should where no chat template has.
        """
        how: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            how = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        inputs = self.tokenizer(
            texts,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=special_tokens,
        ).to(self.model.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tokens = self.model.generate(
                **inputs, max_new_tokens=sampling.max_tokens, pad_token_id=self.tokenizer.pad_token_id, **how
            )[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(tokens, self._ends)
        lengths = (ended.cumsum(dim=1) - ended.long() == 0).sum(dim=1).tolist()
        truncated = (~ended.any(dim=1)).tolist()
        decoded = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return list(map(Completion, decoded, lengths, truncated))


class VllmBackend:
    """Generates with vLLM. Written from its documentation; not run by us, who have no GPU."""

    name = "vllm"

    def __init__(self, path: str, tokenizer: Any, dtype: str) -> None:
        self.tokenizer = tokenizer
        self._vllm = importlib.import_module("vllm")
        self._engine = self._vllm.LLM(model=path, dtype=dtype)

    def complete(
        self, texts: list[str], sampling: Sampling, seed: int, *, special_tokens: bool = False
    ) -> list[Completion]:
        """As `TransformersBackend.complete`."""
        ids = self.tokenizer(texts, add_special_tokens=special_tokens)["input_ids"]
        parameters = self._vllm.SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens, seed=seed
        )
        outputs = self._engine.generate([{"prompt_token_ids": row} for row in ids], parameters, use_tqdm=False)
        firsts = [output.outputs[0] for output in outputs]
        return [Completion(out.text, len(out.token_ids), out.finish_reason == "length") for out in firsts]


def choose_backend(backend: Literal["auto", "vllm", "transformers"]) -> str:
    """`vllm` or `transformers`; `auto` takes vLLM where it is installed and there is a GPU.

    Raises:
        ValueError: vLLM is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if backend == "vllm" and not installed:
        raise ValueError("--backend vllm: vLLM is not installed (pip install vllm)")
    if backend != "auto":
        return backend
    return "vllm" if installed and torch.cuda.is_available() else "transformers"


def generate(
    backend: Any, texts: Sequence[str], sampling: Sampling, *, budget: int, done: frozenset[int] = frozenset()
) -> Iterator[dict[int, Completion]]:
    """Completes every text, batch by batch.

    Args:
        backend: `TransformersBackend` or `VllmBackend`.
        texts: what the model reads, chat templates applied.
        sampling: how; the seed of a batch is made of its seed and the batch's number.
        budget: tokens a batch may come to; see `plan_batches`.
        done: texts that need nothing any more. A batch with others in it is generated whole all the same, since its
            draws belong together.

    Yields:
        For each batch, the completions by the text's index, without those that are `done`.
    """
    lengths = [len(ids) for ids in backend.tokenizer(list(texts))["input_ids"]]
    for number, batch in enumerate(plan_batches(lengths, sampling.max_tokens, budget)):
        if done.issuperset(batch):
            continue
        completions = backend.complete(
            [texts[i] for i in batch],
            sampling,
            derived_seed(sampling.seed, number),
            special_tokens=backend.tokenizer.chat_template is None,
        )
        yield {i: completion for i, completion in zip(batch, completions, strict=True) if i not in done}
