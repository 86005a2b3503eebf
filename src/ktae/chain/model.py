"""Tokenizer and model for the chain task, all plain `transformers` objects.

The model is a Llama of 0.37 million parameters, small enough to be kept in the repository, and any trainer
that takes a causal language model takes it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ktae.chain.problems import WORDS

CHECKPOINT = Path(__file__).parent / "weights"

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = (PAD, BOS, EOS)
# All but one in ten thousand of the teacher's traces fit.
MAX_COMPLETION = 64


def build_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """The word-level tokenizer: one token a word (172 for the chains), text split at whitespace.

    As with Llama's own tokenizer, encoding puts `<bos>` in front and adds nothing at the end, so a prompt is
    plain text; pass `add_special_tokens=False` to encode a completion. Decoding joins the words with single
    spaces. Batches are padded on the left. An unknown word raises an error: there is no token for it.
    """
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast_tokenizer(tokenizer)


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer whose first ids are those of `SPECIAL`, for transformers: `<bos>` in front, padding on the left."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int, vocabulary: int = len(SPECIAL) + len(WORDS), **changes: Any) -> LlamaForCausalLM:
    """A freshly initialised model in float32, its weights determined by `seed`.

    Generation is set to plain sampling at temperature 1 from the whole vocabulary. `changes` are of the configuration.
    """
    pad, bos, eos = range(len(SPECIAL))
    sizes = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        # About 1/sqrt(hidden_size); the default of 0.02 suits models some twenty times as wide.
        "initializer_range": 0.1,
        "tie_word_embeddings": False,
    }
    config = LlamaConfig(
        vocab_size=vocabulary,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
        **(sizes | changes),
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
