"""Models and tokenizers by path: Hugging Face ids, folders, GGUF files, files inside Python packages."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ktae.extras import require


@dataclass(frozen=True)
class Model:
    """The policy to start from.

    Attributes:
        path: a Hugging Face id, a folder, a `.gguf` file, or `python:PACKAGE/PATH`, a file or folder inside an
            installed Python package.
        dtype: precision of the weights; `auto` keeps the checkpoint's own.
    """

    path: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


def load_model(model: Model, trained: Path | None = None) -> tuple[Any, Any]:
    """Loads a causal language model and its tokenizer.

    Args:
        model: the policy to start from.
        trained: a folder with weights trained from it, whole or as LoRA adapters, to load instead.

    Returns:
        The model, on CPU and in `model.dtype`, and the tokenizer, padding on the left. A tokenizer without a padding
        token pads with its end-of-sequence token.

    Raises:
        FileNotFoundError: `model.path` names a package or a file that is not there.
        ValueError: the tokenizer has neither a padding nor an end-of-sequence token.
    """
    transformers = require("transformers", extra="train")
    if trained is not None and (trained / "adapter_config.json").exists():
        base, tokenizer = load_model(model)
        return require("peft", extra="train").PeftModel.from_pretrained(base, str(trained)), tokenizer
    path = str(trained) if trained is not None else resolve(model.path)
    options = {}
    if path.endswith(".gguf"):
        require("gguf", extra="train")
        path, options = str(Path(path).parent), {"gguf_file": Path(path).name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, padding_side="left", **options)
    if options:  # weights kept in their quantized blocks, the default, cannot be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {model.path} has no end-of-sequence token, so completions cannot end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=model.dtype, **options), tokenizer


def resolve(path: str) -> str:
    """The file system path behind `python:PACKAGE/PATH`; any other path unchanged.

    The package is located without importing it.

    >>> resolve("Qwen/Qwen2.5-Math-1.5B")
    'Qwen/Qwen2.5-Math-1.5B'
    """
    if not path.startswith("python:"):
        return path
    package, _, inside = path.removeprefix("python:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{path}: the Python package {package!r} is not installed (pip install {package})")
    resolved = Path(spec.origin).parent / inside
    if not resolved.exists():
        raise FileNotFoundError(f"{path}: {resolved} does not exist")
    return str(resolved)
