"""A language model of a few hundred weights and its tokenizer, built in memory: nothing is downloaded."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS, STOP = "<pad>", "<eos>", "<stop>"
# STOP ends a completion as well, so that many of them end before the length limit. CALL, TOOL and the rest are
# only used by the test with tools.
VOCABULARY = (PAD, EOS, STOP, *"abcdefghij", "<unk>", "<user>", "<assistant>", "<tool>", "<call>")
IDS = {word: index for index, word in enumerate(VOCABULARY)}


def tokenizer():
    words = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=EOS, unk_token="<unk>", padding_side="left"
    )


def model():
    """Random weights, always the same ones: every token is about as likely as any other."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
        pad_token_id=IDS[PAD],
        eos_token_id=IDS[EOS],
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llama = LlamaForCausalLM(config)
    llama.generation_config.eos_token_id = [IDS[EOS], IDS[STOP]]
    return llama


def prompts(count=16):
    """Prompts of unequal lengths, no two alike."""
    letters = "abcdefghij"
    return [" ".join(letters[: n % 3 + 1]) + f" {letters[n % 10]} {letters[n // 10]}" for n in range(count)]
