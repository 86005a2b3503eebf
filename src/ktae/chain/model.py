"""The chain task's starting model and its tokenizer, plain `transformers` objects kept in the package.

A Llama of 0.37 million parameters, which any trainer takes that takes a causal language model; a word is a token.
`weights/README.md` says how it was made.
"""

from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

CHECKPOINT = Path(__file__).parent / "weights"
SPECIAL = PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
# All but one in ten thousand of the teacher's traces fit.
MAX_COMPLETION = 64


@cache
def load() -> tuple[Any, Any]:
    """Model and tokenizer, the same objects at every call: not to be trained."""
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval(), AutoTokenizer.from_pretrained(CHECKPOINT)


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer whose first ids are those of `SPECIAL`, for transformers.

    Encoding puts `<bos>` in front and adds nothing at the end, as with Llama's own tokenizer. Padding is on the left.
    """
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    names = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", clean_up_tokenization_spaces=False, **names
    )
