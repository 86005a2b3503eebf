"""Tokenizer, model and evaluation for the chain task, all plain `transformers` objects.

The model is a Llama of 0.37 million parameters, small enough to be kept in the repository, and any trainer
that takes a causal language model takes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ktae.train.chain import WORDS, exact_match

CHECKPOINT = Path(__file__).parent / "assets" / "modchain"

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_SPECIAL = (PAD, BOS, EOS)
# All but one in ten thousand of the teacher's traces fit.
MAX_COMPLETION = 64


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The word-level tokenizer: 172 tokens, one a word, text split at whitespace.

    As with Llama's own tokenizer, encoding puts `<bos>` in front and adds nothing at the end, so a prompt is
    plain text; pass `add_special_tokens=False` to encode a completion. Decoding joins the words with single
    spaces. Batches are padded on the left. An unknown word raises an error: there is no token for it.
    """
    vocabulary = {word: index for index, word in enumerate((*_SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int) -> LlamaForCausalLM:
    """A freshly initialised model in float32, its weights determined by `seed`.

    Generation is set to plain sampling at temperature 1 from the whole vocabulary.
    """
    pad, bos, eos = range(len(_SPECIAL))
    config = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(WORDS),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        # About 1/sqrt(hidden_size); the default of 0.02 suits models some twenty times as wide.
        initializer_range=0.1,
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return model


@dataclass(frozen=True, slots=True)
class Score:
    """What a model does on a list of problems.

    `accuracy` is the share of right answers in 0..1, `length` the mean number of completion tokens with the
    end-of-sequence token, `cut` the share of completions that hit the length limit. `completions` has the
    texts, `samples` for each problem in turn.
    """

    accuracy: float
    length: float
    cut: float
    completions: tuple[str, ...]


@torch.no_grad()
def evaluate(
    model,
    tokenizer,
    rows: Sequence[dict[str, str]],
    *,
    greedy: bool = False,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 500,
) -> Score:
    """Answer the problems in `rows` and grade the answers; at most 64 tokens a completion.

    Either one greedy completion a problem or `samples` at temperature 1. The result depends on `seed`, and
    with sampling on `batch_size`; torch's global generator is left as it was. Raises ValueError for no rows.
    """
    if greedy and samples != 1:
        raise ValueError(f"greedy decoding gives one completion a problem, got samples={samples}")
    if not rows or samples < 1:
        raise ValueError(f"expected at least one problem and one sample, got {len(rows)} and {samples}")
    repeated = [row for row in rows for _ in range(samples)]
    device = model.device
    was_training = model.training
    model.eval()
    rewards: list[float] = []
    lengths: list[int] = []
    completions: list[str] = []
    cut = 0
    choice = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(repeated), batch_size):
            batch = repeated[start : start + batch_size]
            prompts = [row["prompt"] for row in batch]
            inputs = tokenizer(prompts, padding=True, return_tensors="pt").to(device)
            out = model.generate(**inputs, max_new_tokens=MAX_COMPLETION, **choice)
            tokens = out[:, inputs["input_ids"].shape[1] :]
            ended = tokens == tokenizer.eos_token_id
            lengths += ((ended.cumsum(1) - ended.long()) == 0).sum(1).tolist()
            cut += int((~ended.any(1)).sum())
            texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            rewards += exact_match(prompts, texts, [row["answer"] for row in batch])
            completions += texts
    model.train(was_training)
    n = len(rewards)
    return Score(sum(rewards) / n, sum(lengths) / n, cut / n, tuple(completions))
