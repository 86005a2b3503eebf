"""Models and tokenizers by path: Hugging Face ids, folders, GGUF files, files inside Python packages."""

from __future__ import annotations

import importlib.util
import re
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
    """A causal language model, on CPU and in `model.dtype`, and its tokenizer, as `load_tokenizer`.

    `trained` is a folder with weights trained from the model, whole or as LoRA adapters, to load instead.
    """
    transformers = require("transformers", extra="train")
    if trained is not None and (trained / "adapter_config.json").exists():
        base, tokenizer = load_model(model)
        return require("peft", extra="train").PeftModel.from_pretrained(base, str(trained)), tokenizer
    path = str(trained or model.path)
    tokenizer = load_tokenizer(path)
    located, options = _located(path)
    if options:  # weights kept in their quantized blocks, the default, cannot be trained
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(located, dtype=model.dtype, **options), tokenizer


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model, padding on the left, with its end-of-sequence token if it has none to pad with.

    Raises a ValueError if it has no end-of-sequence token.
    """
    located, options = _located(path)
    auto = require("transformers", extra="train").AutoTokenizer
    tokenizer = auto.from_pretrained(located, padding_side="left", **options)
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {path} has no end-of-sequence token, so completions cannot end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def resolve(path: str) -> str:
    """The file system path behind `python:PACKAGE/PATH`, whose package is not imported; any other path unchanged.

    Raises a FileNotFoundError if the package, or a path that can only be a local one, does not exist.
    """
    if not path.startswith("python:"):
        if not Path(path).exists() and not _is_hub_id(path):
            raise FileNotFoundError(f"the model {path} does not exist (looked in {Path.cwd()})")
        return path
    package, _, inside = path.removeprefix("python:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{path}: the Python package {package!r} is not installed (pip install {package})")
    resolved = Path(spec.origin).parent / inside
    if not resolved.exists():
        raise FileNotFoundError(f"{path}: {resolved} does not exist")
    return str(resolved)


def check_available(path: str) -> None:
    """Checks with one request at most that a model can be loaded; transformers would try for a minute.

    Raises an OSError, a FileNotFoundError for paths, if the model is neither there nor on the hub nor in its cache.
    """
    resolved = Path(resolve(path))
    if resolved.is_dir() and not any(resolved.glob("*config.json")):  # or adapter_config.json
        raise FileNotFoundError(f"the folder {path} holds no model: there is no config.json in it")
    hub = require("huggingface_hub", extra="train")
    if resolved.exists() or isinstance(hub.try_to_load_from_cache(path, "config.json"), str):
        return
    try:
        hub.HfApi().model_info(path, timeout=10)
    except Exception as error:  # of the hub's own classes and those of its client
        reason = str(error).strip().partition("\n")[0]
        raise OSError(
            f"the model {path} is no local folder, and the Hugging Face hub does not give it: {reason}"
        ) from error


def check_model(model: Model) -> tuple[Any, Any]:
    """All of a model but its weights: transformers' configuration and the tokenizer.

    Raises a ValueError if one of them cannot be loaded, otherwise as `check_available`.
    """
    check_available(model.path)
    located, options = _located(model.path)
    folder = Path(located)
    if folder.is_dir() and not options and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise FileNotFoundError(f"the folder {model.path} holds no weights: no .safetensors or .bin file is in it")
    try:
        config = require("transformers", extra="train").AutoConfig.from_pretrained(located, **options)
        return config, load_tokenizer(model.path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the model {model.path} cannot be loaded: {' '.join(str(error).split())}") from error


def _located(path: str) -> tuple[str, dict[str, Any]]:
    """A path as transformers takes it, and the arguments that go with it: a GGUF file is named in its folder."""
    path = resolve(path)
    if not path.endswith(".gguf"):
        return path, {}
    require("gguf", extra="train")
    return str(Path(path).parent), {"gguf_file": Path(path).name}


def _is_hub_id(path: str) -> bool:
    """Whether it can be NAME or OWNER/NAME on the hub. `runs/mine` is not one if there is a folder `runs`."""
    owner, slash, _ = path.partition("/")
    is_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path) is not None
    return is_id and not path.endswith(".gguf") and not (slash and Path(owner).is_dir())
