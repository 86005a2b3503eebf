"""Models and tokenizers by path: Hugging Face ids, folders, GGUF files, files inside Python packages."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ktae.extras import require

_SECONDS = 10.0  # for the hub to answer


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
        FileNotFoundError, ValueError: those of `find`.
        ValueError: the tokenizer has no end-of-sequence token.
    """
    transformers = require("transformers", extra="train")
    if trained is not None and (trained / "adapter_config.json").exists():
        base, tokenizer = load_model(model)
        return require("peft", extra="train").PeftModel.from_pretrained(base, str(trained)), tokenizer
    path, options = _files(str(trained) if trained is not None else find(model.path))
    tokenizer = _tokenizer(model, path, options)
    if options:  # weights kept in their quantized blocks, the default, cannot be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=model.dtype, **options), tokenizer


def check_model(model: Model) -> tuple[Any, Any]:
    """Finds out within seconds whether `load_model` can work: all but the weights is loaded.

    Returns:
        transformers' configuration and the tokenizer.

    Raises:
        FileNotFoundError, ValueError: those of `find`.
        ValueError: a folder without weights, a configuration or tokenizer that cannot be loaded, or a tokenizer without
            an end-of-sequence token.
    """
    path, options = _files(find(model.path))
    if Path(path).exists() and not options and not [*Path(path).glob("*.safetensors"), *Path(path).glob("*.bin")]:
        raise ValueError(f"model {model.path}: there are no weights in {path}")
    try:
        config = require("transformers", extra="train").AutoConfig.from_pretrained(path, **options)
        return config, _tokenizer(model, path, options)
    except (OSError, ValueError) as error:
        raise ValueError(f"model {model.path}: {' '.join(str(error).split())}") from error


def find(path: str) -> str:
    """The folder or file behind a path, or the Hugging Face id as it is, once it is known to be there.

    Raises:
        FileNotFoundError: a local path, as all but NAME and OWNER/NAME are, that does not exist.
        ValueError: the hub has no such model, or cannot be reached and the model is not in its cache.
    """
    resolved = resolve(path)
    if Path(resolved).exists():
        return resolved
    parts = Path(path).parts
    is_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path) and not path.endswith(".gguf")
    if not is_id or (len(parts) > 1 and Path(parts[0]).is_dir()):
        raise FileNotFoundError(f"model {path} does not exist (looked in {Path.cwd()})")
    hub: Any = require("huggingface_hub", extra="train")
    try:
        hub.HfApi().model_info(path, timeout=_SECONDS)
    except hub.errors.RepositoryNotFoundError:
        raise ValueError(f"model {path}: no such folder here, and no such model that you may read on the hub") from None
    except Exception as error:  # of whichever HTTP library the hub's client uses
        if not isinstance(hub.try_to_load_from_cache(path, "config.json"), str):
            raise ValueError(
                f"model {path}: no such folder here, the hub cannot be reached ({type(error).__name__}), and the "
                "model is not in its cache"
            ) from None
        hub.constants.HF_HUB_OFFLINE = True  # or each file would be asked for, again and again
    return path


def _files(path: str) -> tuple[str, dict[str, Any]]:
    """The folder to load from, and the options that name the file in it if it is a GGUF file."""
    if not path.endswith(".gguf"):
        return path, {}
    require("gguf", extra="train")
    return str(Path(path).parent), {"gguf_file": Path(path).name}


def _tokenizer(model: Model, path: str, options: dict[str, Any]) -> Any:
    tokenizer = require("transformers", extra="train").AutoTokenizer.from_pretrained(
        path, padding_side="left", **options
    )
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {model.path} has no end-of-sequence token, so completions cannot end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
