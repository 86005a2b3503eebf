"""The chain task's starting model and its tokenizer, plain `transformers` objects kept in the package.

A Llama of 0.37 million parameters, which any trainer takes that takes a causal language model; a word is a token.
`weights/README.md` says how it was made.
"""

from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

CHECKPOINT = Path(__file__).parent / "weights"
# All but one in ten thousand of the teacher's traces fit.
MAX_COMPLETION = 64


@cache
def load() -> tuple[Any, Any]:
    """Model and tokenizer, the same objects at every call: not to be trained."""
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval(), AutoTokenizer.from_pretrained(CHECKPOINT)
