"""`ktae train RECIPE --dry-run`: what a recipe comes to, checked as far as it can be here, without training anything.

No weights are loaded, no GPU is needed and nothing is written (the libraries' own caches apart). What is at hand (data,
tokenizer, the model's configuration) is checked as a real run would check it; what is not is listed at the end, with
what settles it. `WORLD_SIZE=8 ktae train RECIPE --dry-run` plans for eight processes on any machine.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ktae.data.sources import file_kind
from ktae.extras import require
from ktae.models.load import resolve
from ktae.train.memory import (
    adapter_parameters,
    architecture,
)
from ktae.train.plan_memory import memory_section
from ktae.train.plan_sections import (
    TOKENIZED,
    Notes,
    Policy,
    Prompts,
    algorithms_section,
    batch_section,
    data_section,
    grid,
    model_section,
    training_section,
)
from ktae.train.recipe import Recipe
from ktae.train.run import Run, check, load_rewards, quiet
from ktae.train.settings import grpo_config, is_main, processes

_SECONDS = 3.0  # for the hub to answer
_QWEN = {"num_hidden_layers": 28, "max_position_embeddings": 4096, "dtype": "bfloat16"}
# For plans where the hub cannot be reached; from the models' config.json.
_KNOWN = {
    "Qwen/Qwen2.5-Math-1.5B": {
        **_QWEN,
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-Math-7B": {
        **_QWEN,
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}


def print_plan(recipe: Recipe) -> None:
    """Checks a recipe and prints what a run of it would be.

    Args:
        recipe: what would be run, by as many processes as the environment says (WORLD_SIZE).

    Raises:
        ValueError, OSError, ImportError: what `ktae train` raises where a setting or a file is wrong. What cannot be
            checked is no error.
    """
    quiet()
    notes, strategy = Notes(), _strategy()
    with _other_processes(), _without_deepspeed(strategy, notes), _hub(recipe) as hub:
        run = _run(recipe, hub, notes)
        out, rows = default_folder(recipe), len(run.test_rows) if run else recipe.data.test_rows
        configs = {name: grpo_config(recipe, name, out, test_rows=rows) for name in recipe.algorithms}
        if not is_main():
            return
        config = max(configs.values(), key=lambda config: config.beta)  # the one that needs most memory
        policy = _policy(recipe, hub, notes)
        prompts = _prompts(recipe, config, run, policy.tokenizer)
        sections: dict[str, Any] = {
            "Algorithms" if len(configs) > 1 else "Algorithm": algorithms_section(recipe, configs),
            "Training": training_section(recipe, config, policy, strategy, notes),
            "Batch": batch_section(recipe, config, run),
            "Data": data_section(recipe, config, run, prompts, policy, notes),
            "Model": model_section(recipe, policy),
        }
        if policy.sizes is not None:
            title, table = memory_section(recipe, config, policy, prompts, strategy, notes)
            sections[title] = table
        _installed(recipe, config, notes)
    _print(recipe, sections, notes)


def _print(recipe: Recipe, sections: dict[str, Any], notes: Notes) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(f"[bold]{recipe.name}[/]: a dry run, nothing is trained or written")
    for title, content in sections.items():
        console.print(f"\n[bold blue]{title}[/]")
        console.print(Padding.indent(grid(content) if isinstance(content, list) else content, 2))
    if notes.warnings:
        console.print("\n[bold dark_orange]Most likely not meant[/]")
        for warning in notes.warnings:
            console.print(Padding.indent(Text(warning), 2))
    if notes.unchecked:
        console.print("\n[bold dark_orange]Not checked here[/]")
        for what, settled_by in notes.unchecked:
            console.print(Padding.indent(Text(what), 2))
            console.print(Padding.indent(Text(settled_by, style="dim"), 6))
    else:
        console.print("\nEverything that a dry run can check has been checked.")


# What can be at hand or not


@contextmanager
def _other_processes() -> Iterator[None]:
    """Shows TRL as many processes as WORLD_SIZE says where nobody has started the others."""
    distributed = torch.distributed
    if processes() == 1 or "LOCAL_RANK" in os.environ or distributed.is_initialized():
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    world = str(processes())
    with _environment(RANK="0", LOCAL_RANK="0", LOCAL_WORLD_SIZE=world, MASTER_ADDR="localhost"):
        distributed.init_process_group("fake", rank=0, world_size=processes(), store=FakeStore())
        try:
            yield
        finally:
            distributed.destroy_process_group()


@contextmanager
def _without_deepspeed(strategy: str | None, notes: Notes) -> Iterator[None]:
    """Plans a run with DeepSpeed where it is not installed."""
    if strategy is None or not strategy.startswith("ZeRO") or importlib.util.find_spec("deepspeed") is not None:
        yield
        return
    notes.unchecked.append(("deepspeed is not installed", "`pip install deepspeed`"))
    with _environment(ACCELERATE_USE_DEEPSPEED="false"):
        yield


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _strategy() -> str | None:
    """How accelerate has been told to shard the model: "FSDP2", "ZeRO-3", ...; None for not at all."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return f"FSDP{os.environ.get('FSDP_VERSION', '1')}"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return f"ZeRO-{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '2')}"
    return None


@contextmanager
def _hub(recipe: Recipe) -> Iterator[bool]:
    """Whether the hub answers, if the recipe needs it.

    It is asked once. Where it does not answer, the libraries, which would go on asking for half a minute, are told that
    they are offline; what is in their caches is found all the same.
    """
    source = recipe.data.source
    data_on_hub = source != "modchain" and file_kind(source) is None and not Path(source).exists()
    if Path(resolve(recipe.model.path)).exists() and not data_on_hub:
        yield True
        return
    hub: Any = require("huggingface_hub", extra="train")
    datasets: Any = require("datasets", extra="train")
    answers = False
    if not hub.constants.HF_HUB_OFFLINE:
        try:
            answers = hub.utils.get_session().head(hub.constants.ENDPOINT, timeout=_SECONDS).status_code < 400
        except Exception:  # of whichever HTTP library the hub's client uses
            answers = False
    if answers:
        yield True
        return
    before = hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield False
    finally:
        hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _run(recipe: Recipe, hub: bool, notes: Notes) -> Run | None:
    """The run as `ktae train` checks it, or None where its data is not at hand."""
    source = recipe.data.source
    if recipe.lora and importlib.util.find_spec("peft") is None:
        notes.unchecked.append(("peft is not installed, so lora is not checked", "`pip install peft`"))
        recipe = dataclasses.replace(recipe, lora=None)
    if file_kind(source) is None or Path(source).exists():
        try:
            return check(recipe, default_folder(recipe))
        except ConnectionError:
            if hub:
                raise
            notes.unchecked.append(
                (f"{source}: the hub does not answer", f"`hf download --repo-type dataset {source}`")
            )
    else:
        prepared = recipe.data.prompt is None and recipe.data.answer is None
        command = f"`ktae data prepare SOURCE --out {source}`" if prepared else "make the file"
        notes.unchecked.append((f"{source} is not there", f"{command}; see the recipe's first lines"))
    resolve(recipe.model.path)
    load_rewards(recipe)
    return None


def _policy(recipe: Recipe, hub: bool, notes: Notes) -> Policy:
    """Configuration and tokenizer as `load_model` loads them, without the weights.

    Raises:
        ValueError: they are at hand and cannot be used.
    """
    transformers = require("transformers", extra="train")
    name, path, options = recipe.model.path, resolve(recipe.model.path), {}
    local, tokenizer, source = Path(path).exists(), None, "counted without loading them"
    if path.endswith(".gguf"):
        require("gguf", extra="train")
        path, options = str(Path(path).parent), {"gguf_file": Path(path).name}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, padding_side="left", **options)
    except (OSError, ValueError) as error:
        if local or (hub and name.count("/") <= 1):
            raise ValueError(f"model.path {name}: {' '.join(str(error).split())}") from error
        config = transformers.Qwen2Config(**_KNOWN[name]) if name in _KNOWN else None
        source = "from ktae's own table of this model"
        what = "tokenizer and weights" if config else "sizes, tokenizer and weights"
        if name.count("/") == 1:
            notes.unchecked.append(
                (f"{what} of {name}: the hub does not answer", f"`hf download {name}`, or make the folder")
            )
        else:
            notes.unchecked.append((f"{what} of {name}: it is not there", "make the folder"))
    if tokenizer is not None and tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {name} has no end-of-sequence token, so completions cannot end")
    if local and not options and not any(Path(path).glob("*.safetensors")) and not any(Path(path).glob("*.bin")):
        raise ValueError(f"model.path {name}: there are no weights in {path}")
    if config is None:
        return Policy(tokenizer=tokenizer)
    try:
        sizes, skeleton = architecture(config)
    except AttributeError as error:
        notes.unchecked.append(
            (f"memory: {type(config).__name__} is of a kind that is not estimated ({error})", "run it")
        )
        return Policy(config, tokenizer, source=source)
    trained = adapter_parameters(skeleton, recipe.lora) if recipe.lora else sizes.parameters
    return Policy(config, tokenizer, sizes, trained, source)


def _prompts(recipe: Recipe, config: Any, run: Run | None, tokenizer: Any) -> Prompts | None:
    """The prompts through the tokenizer, as TRL sends them.

    Raises:
        ValueError: they are chat messages and the tokenizer has no chat template.
    """
    if run is None or tokenizer is None:
        return None
    prompts = list(run.train_rows["prompt"][:TOKENIZED])
    if isinstance(prompts[0], str):
        return Prompts(prompts[0], [len(ids) for ids in tokenizer(text=prompts)["input_ids"]])
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the prompts are chat messages, and the tokenizer of {recipe.model.path} has no chat template"
        )
    how = {"add_generation_prompt": True, **(config.chat_template_kwargs or {})}
    ids = tokenizer.apply_chat_template(prompts, return_dict=True, **how)["input_ids"]
    return Prompts(tokenizer.apply_chat_template(prompts[0], tokenize=False, **how), [len(row) for row in ids])


def _installed(recipe: Recipe, config: Any, notes: Notes) -> None:
    """What is needed beside ktae's own requirements, and what only a GPU can show."""
    optional = ["vllm"] if config.use_vllm else []
    optional += [name for name in config.report_to if name in ("tensorboard", "trackio", "wandb")]
    for name in optional:
        if importlib.util.find_spec(name) is None:
            notes.unchecked.append((f"{name} is not installed", f"`pip install {name}`"))
    if config.use_vllm and config.vllm_mode == "server":
        url = config.vllm_server_base_url or f"{config.vllm_server_host}:{config.vllm_server_port}"
        notes.unchecked.append((f"the vLLM server at {url} has not been asked", "start it before the run"))
    if config.use_vllm and not torch.accelerator.is_available():
        steps = f"a run of one generation on GPUs: `--trl.max_steps {recipe.batch.updates * config.num_iterations}`"
        notes.unchecked.append(("no GPU here: vLLM, speed, whether the memory is enough", steps))


def default_folder(recipe: Recipe) -> Path:
    """Where the run would go, by default; part of TRL's settings, not created."""
    return Path("runs") / recipe.name
