"""What vLLM 0.33 documents of itself, as far as `ktae eval` uses it; vLLM needs a GPU and has not been run by us."""

import random
from dataclasses import dataclass
from types import SimpleNamespace


@dataclass
class SamplingParams:
    """The fields of vLLM 0.33's own that matter, with its defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    seed: int | None = None


class LLM:
    """As vLLM documents it: a list of SamplingParams is paired with the prompts, a single one goes to each of them."""

    def __init__(self, model, dtype, generation_config="auto"):
        self.settings = model, dtype, generation_config

    def generate(self, prompts, sampling_params, use_tqdm=True):
        if isinstance(sampling_params, SamplingParams):
            sampling_params = [sampling_params] * len(prompts)
        assert len(sampling_params) == len(prompts)
        self.sampling_params = sampling_params
        for prompt, params in zip(prompts, sampling_params, strict=True):
            drawn = random.Random(params.seed).choices(range(10**6), k=3)
            text = " ".join(map(str, (*prompt["prompt_token_ids"], *drawn)))
            reason = "length" if params.max_tokens == 3 else "stop"
            yield SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=drawn, finish_reason=reason)])
