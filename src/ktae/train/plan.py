"""`ktae train RECIPE --dry-run`: what a recipe comes to, checked as far as it can be here, without training anything.

No weights are loaded, no GPU is needed and nothing is written (the libraries' own caches apart). What is at hand (data,
tokenizer, the model's configuration) is checked as a real run would check it; what is not is listed at the end, with
what settles it. `WORLD_SIZE=8 ktae train RECIPE --dry-run` plans for eight processes on any machine.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ktae.data.sources import file_kind
from ktae.extras import require
from ktae.train.memory import (
    Architecture,
    Load,
    Phase,
    Term,
    adapter_parameters,
    architecture,
    cache_bytes,
    estimate,
    peaks,
)
from ktae.train.models import resolve
from ktae.train.recipe import ALGORITHMS, Recipe
from ktae.train.run import Run, _quiet, check, load_rewards
from ktae.train.settings import grpo_config, has_overlong, is_main, processes

_SECONDS = 3.0  # for the hub to answer
_TOKENIZED = 20_000  # prompts at most
_TRIED = 20  # answers that the reward function is given
_SHOWN = 300  # characters of a prompt
_ASSUMED_PROMPT = 1024  # tokens, where neither the data nor vLLM's limit says
_CARD = 80e9  # bytes of a GPU, where there is none
_STATES = {"adamw_torch": 2, "adamw_torch_fused": 2, "sgd": 0}  # values kept of each trained weight
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


@dataclass
class _Notes:
    """What the plan says at its end.

    Attributes:
        warnings: what is allowed and most likely not meant.
        unchecked: what could not be checked, and what settles it.
    """

    warnings: list[str] = field(default_factory=list)
    unchecked: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Policy:
    """What is known of the model.

    Attributes:
        config: transformers' configuration, None if unknown.
        tokenizer: None if it could not be loaded.
        sizes: None if the configuration is unknown or of another kind than `architecture` reads.
        trained: parameters that training changes; 0 if `sizes` is None.
        source: where the number of parameters is from.
    """

    config: Any = None
    tokenizer: Any = None
    sizes: Architecture | None = None
    trained: int = 0
    source: str = ""


@dataclass(frozen=True)
class _Prompts:
    """The training prompts as the model gets them: the first one's text, and how many tokens each has."""

    first: str
    lengths: list[int]


def print_plan(recipe: Recipe) -> None:
    """Checks a recipe and prints what a run of it would be.

    Args:
        recipe: what would be run, by as many processes as the environment says (WORLD_SIZE).

    Raises:
        ValueError, OSError, ImportError: what `ktae train` raises where a setting or a file is wrong. What cannot be
            checked is no error.
    """
    _quiet()
    notes, strategy = _Notes(), _strategy()
    with _other_processes(), _without_deepspeed(strategy, notes), _hub(recipe) as hub:
        run = _run(recipe, hub, notes)
        out, rows = _out(recipe), len(run.test_rows) if run else recipe.data.test_rows
        configs = {name: grpo_config(recipe, name, out, test_rows=rows) for name in recipe.algorithms}
        if not is_main():
            return
        config = max(configs.values(), key=lambda config: config.beta)  # the one that needs most memory
        policy = _policy(recipe, hub, notes)
        prompts = _prompts(recipe, config, run, policy.tokenizer)
        sections: dict[str, Any] = {
            "Algorithms" if len(configs) > 1 else "Algorithm": _algorithms(recipe, configs),
            "Training": _training(recipe, config, policy, strategy, notes),
            "Batch": _batch(recipe, config, run),
            "Data": _problems(recipe, config, run, prompts, policy, notes),
            "Model": _model(recipe, policy),
        }
        if policy.sizes is not None:
            title, table = _memory(recipe, config, policy, prompts, strategy, notes)
            sections[title] = table
        _installed(recipe, config, notes)
    _print(recipe, sections, notes)


def _print(recipe: Recipe, sections: dict[str, Any], notes: _Notes) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(f"[bold]{recipe.name}[/]: a dry run, nothing is trained or written")
    for title, content in sections.items():
        console.print(f"\n[bold blue]{title}[/]")
        console.print(Padding.indent(_grid(content) if isinstance(content, list) else content, 2))
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


def _grid(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for label, value in rows:
        grid.add_row(Text(label), Text(value))
    return grid


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
def _without_deepspeed(strategy: str | None, notes: _Notes) -> Iterator[None]:
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


def _run(recipe: Recipe, hub: bool, notes: _Notes) -> Run | None:
    """The run as `ktae train` checks it, or None where its data is not at hand."""
    source = recipe.data.source
    if recipe.lora and importlib.util.find_spec("peft") is None:
        notes.unchecked.append(("peft is not installed, so lora is not checked", "`pip install peft`"))
        recipe = dataclasses.replace(recipe, lora=None)
    if file_kind(source) is None or Path(source).exists():
        try:
            return check(recipe, _out(recipe))
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


def _policy(recipe: Recipe, hub: bool, notes: _Notes) -> _Policy:
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
        return _Policy(tokenizer=tokenizer)
    try:
        sizes, skeleton = architecture(config)
    except AttributeError as error:
        notes.unchecked.append(
            (f"memory: {type(config).__name__} is of a kind that is not estimated ({error})", "run it")
        )
        return _Policy(config, tokenizer, source=source)
    trained = adapter_parameters(skeleton, recipe.lora) if recipe.lora else sizes.parameters
    return _Policy(config, tokenizer, sizes, trained, source)


def _prompts(recipe: Recipe, config: Any, run: Run | None, tokenizer: Any) -> _Prompts | None:
    """The prompts through the tokenizer, as TRL sends them.

    Raises:
        ValueError: they are chat messages and the tokenizer has no chat template.
    """
    if run is None or tokenizer is None:
        return None
    prompts = list(run.train_rows["prompt"][:_TOKENIZED])
    if isinstance(prompts[0], str):
        return _Prompts(prompts[0], [len(ids) for ids in tokenizer(text=prompts)["input_ids"]])
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the prompts are chat messages, and the tokenizer of {recipe.model.path} has no chat template"
        )
    how = {"add_generation_prompt": True, **(config.chat_template_kwargs or {})}
    ids = tokenizer.apply_chat_template(prompts, return_dict=True, **how)["input_ids"]
    return _Prompts(tokenizer.apply_chat_template(prompts[0], tokenize=False, **how), [len(row) for row in ids])


def _installed(recipe: Recipe, config: Any, notes: _Notes) -> None:
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


# The sections


def _algorithms(recipe: Recipe, configs: dict[str, Any]) -> Table:
    averages = {
        "grpo": "mean over rollouts of means over tokens",
        "dapo": "mean over the tokens of an update",
        "bnpo": "mean over the tokens of a pass",
        "dr_grpo": "sum over tokens / (rollouts x limit)",
    }
    scaled = {"group": " / its std", "batch": " / std of the generation"}
    table = Table.grid(padding=(0, 2))
    table.add_row("", *(Text(ALGORITHMS[name].label, style="bold") for name in configs))

    def row(label: str, value: Any) -> None:
        table.add_row(Text(label), *(Text(value(name, config)) for name, config in configs.items()))

    def clip(_: str, config: Any) -> str:
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        return f"ratios {1 - config.epsilon:g} to {1 + high:g}"

    def kl(_: str, config: Any) -> str:
        estimator = "k3 times the ratio" if config.use_bias_correction_kl else "k3"
        return f"{config.beta:g}, {estimator}" if config.beta else "none"

    def key_tokens(name: str, _: Any) -> str:
        if not ALGORITHMS[name].ktae:
            return "none"
        ktae = recipe.ktae
        weights = (
            f"Fisher {ktae.fisher_weight:g}, IG {ktae.information_gain_weight:g}, tf {ktae.term_frequency_weight:g}"
        )
        excluded = f"; never {list(ktae.exclude_token_ids)}" if ktae.exclude_token_ids else ""
        released = "; released code's Fisher table" if ktae.fisher == "released" else ""
        return f"{weights}; scale {ktae.scale:g}{released}{excluded}"

    def sampling(name: str, _: Any) -> str:
        dynamic = recipe.dynamic_sampling
        if not ALGORITHMS[name].dapo or dynamic is None:
            return "none"
        return f"{dynamic.max_generation_rounds} rounds at most, then {dynamic.when_short}"

    def overlong(name: str, config: Any) -> str:
        if not has_overlong(recipe, name) or recipe.overlong is None:
            return "none"
        limit = config.max_completion_length
        return f"up to {recipe.overlong.factor:g} over the last {recipe.overlong.buffer:,} of {limit:,} tokens"

    row("loss", lambda _, config: averages.get(config.loss_type, config.loss_type))
    row("clipped to", clip)
    row("KL to the start", kl)
    row("advantages", lambda _, config: f"(reward - mean of the group){scaled.get(config.scale_rewards, '')}")
    row("key-token values", key_tokens)
    row("dynamic sampling", sampling)
    row("overlong punishment", overlong)
    return table


def _training(
    recipe: Recipe, config: Any, policy: _Policy, strategy: str | None, notes: _Notes
) -> list[tuple[str, str]]:
    weights = _weights(recipe, policy)
    half = "bfloat16" if config.bf16 else "float16" if config.fp16 else None
    precision = f"{weights} weights" + (f", {half} autocast" if half else "")
    precision += ", gradient checkpointing" if config.gradient_checkpointing else ""
    defaults = {"bf16": "bfloat16 autocast", "gradient_checkpointing": "gradient checkpointing"}
    left = [words for key, words in defaults.items() if key not in recipe.trl]
    if left and not torch.accelerator.is_available():
        precision += f" (on a GPU {' and '.join(left)} by default)"
    if weights != "float32" and weights != "unknown" and not recipe.lora and strategy is None:
        notes.warnings.append(
            f"model.dtype: the {weights} weights themselves are trained, with {weights} optimizer states; changes "
            "below 1/256 of a weight are lost, as most are at learning rates around 1e-6. float32 keeps them"
        )
    if config.beta and not recipe.lora and recipe.model.path.endswith(".gguf"):
        notes.warnings.append("trl.beta: TRL loads the reference model from model.path, which fails with a .gguf file")
    rate = f"{config.learning_rate:g}, {getattr(config.lr_scheduler_type, 'value', config.lr_scheduler_type)}"
    if config.warmup_steps:
        rate += f" after {config.warmup_steps:g} warm-up" + (" steps" if config.warmup_steps >= 1 else " (share)")
    clipping = f"gradient norm at most {config.max_grad_norm:g}" if config.max_grad_norm else "gradients not clipped"
    optimizer = getattr(config.optim, "value", config.optim)
    rewards = " + ".join(recipe.rewards)
    sampling = f"temperature {config.temperature:g}, at most {config.max_completion_length:,} tokens"
    sampling += f", top-p {config.top_p:g}" if config.top_p < 1 else ""
    sampling += f", top-k {config.top_k}" if config.top_k else ""
    rows = [
        ("learning rate", rate),
        ("optimizer", f"{optimizer}, weight decay {config.weight_decay:g}, {clipping}"),
        ("precision", precision),
        ("sampling", f"{sampling}; {_engine(config)}"),
        ("rewards", f"{rewards}; correct where {recipe.correctness} > {recipe.ktae.correct_above:g}"),
    ]
    if recipe.lora:
        lora = recipe.lora
        targets = lora.target_modules if lora.target_modules == "all-linear" else ", ".join(lora.target_modules)
        parameters = f": {policy.trained:,} parameters" if policy.trained else ""
        rows.append(("adapters", f"LoRA of rank {lora.rank}, alpha {lora.alpha}, on {targets}{parameters}"))
    rows.append(("seed", str(recipe.seed)))
    return rows


def _engine(config: Any) -> str:
    if not config.use_vllm:
        return "transformers"
    correction = "with" if config.vllm_importance_sampling_correction else "without"
    correction += " importance-sampling correction"
    if config.vllm_mode == "server":
        return f"vLLM server, {correction}"
    sleeps = ", asleep meanwhile" if config.vllm_enable_sleep_mode else ""
    return f"vLLM in {config.vllm_gpu_memory_utilization:g} of each GPU{sleeps}, {correction}"


def _batch(recipe: Recipe, config: Any, run: Run | None) -> list[tuple[str, str]]:
    batch, world = recipe.batch, processes()
    rollouts = batch.prompts * batch.rollouts
    updates = batch.updates * config.num_iterations
    share = f", {rollouts // world:,} of them on each of {world} processes" if world > 1 else ""
    at_once = f"{batch.per_device} rollouts" + (f" on each of {world} processes" if world > 1 else "")
    passes = config.gradient_accumulation_steps
    when = {"steps": f"every {config.save_steps:g} updates", "no": "none"}
    save = when.get(config.save_strategy.value, str(config.save_strategy.value))
    save += f", the last {config.save_total_limit} kept" if config.save_total_limit and save != "none" else ""
    rows = [
        ("a generation", f"{batch.prompts:,} problems x {batch.rollouts} rollouts = {rollouts:,}{share}"),
        (
            "an update",
            f"{batch.mini_batch:,} problems x {batch.rollouts} rollouts = {batch.mini_batch * batch.rollouts:,}, in "
            f"{passes:,} pass{'es' if passes > 1 else ''} of {at_once}",
        ),
        ("in all", _length(recipe, config, run, updates)),
        ("checkpoints", save),
    ]
    evaluation = recipe.evaluation
    modes = [f"{evaluation.samples} sampled"] * (evaluation.samples > 0) + ["1 greedy"] * evaluation.greedy
    measured = f"{' and '.join(modes)} for each held-out problem, before and after training" if modes else "none"
    measured += f"; 1 sampled every {evaluation.every} updates" if evaluation.every else ""
    return [*rows, ("evaluation", measured)]


def _length(recipe: Recipe, config: Any, run: Run | None, updates: int) -> str:
    """How many updates and generations the run has, and how often it goes through the data."""
    generations = len(run.train_rows) // recipe.batch.prompts if run else None  # TRL drops the incomplete last one
    total, epochs = config.max_steps, config.num_train_epochs
    if total <= 0 and generations:
        total = math.ceil(epochs * generations * updates)
    elif generations:
        epochs = total / updates / generations
    through = f"{'once' if epochs == 1 else f'{epochs:.3g} times'} through the data"
    each = f"{updates} update{'s' if updates > 1 else ''} a generation"
    if total <= 0:
        return f"{through}, {each}"
    often = f"{through}; " if generations else ""
    return f"{total:,} updates, {often}{math.ceil(total / updates):,} generations, {each}"


def _problems(
    recipe: Recipe, config: Any, run: Run | None, prompts: _Prompts | None, policy: _Policy, notes: _Notes
) -> list[tuple[str, str]]:
    data = recipe.data
    if run is None:
        return [("source", f"{data.source}, not at hand"), ("rows", f"{data.test_rows:,} of them held out")]
    row = run.train_rows[0]
    rows = [
        ("source", data.source),
        ("rows", f"{len(run.train_rows):,} to train on, {len(run.test_rows):,} held out"),
        ("columns", ", ".join(run.train_rows.column_names)),
    ]
    if prompts is None:
        first = row["prompt"]
        rows.append(("a prompt", _end(first if isinstance(first, str) else first[-1]["content"])))
    else:
        longest = max(prompts.lengths)
        rows.append(("a prompt, as sent", _end(prompts.first)))
        rows.append(("tokens of a prompt", f"median {statistics.median(prompts.lengths):g}, at most {longest:,}"))
        rows[-1] = rows[-1][0], rows[-1][1] + f" in the first {_TOKENIZED:,}" * (len(run.train_rows) > _TOKENIZED)
        _check_lengths(longest, config, policy, notes)
    answers = row["answers"]
    rows.append(("its answer", " or ".join(answers)))
    if recipe.correctness == "math_answer":
        rows.append(("reward", _try_reward(run, notes)))
    return rows


def _end(text: str) -> str:
    text = text.rstrip()
    return text if len(text) <= _SHOWN else "…" + text[-_SHOWN:]


def _check_lengths(longest: int, config: Any, policy: _Policy, notes: _Notes) -> None:
    limits = {"the model's context": policy.sizes.context if policy.sizes else None}
    if config.use_vllm:
        limits["trl.vllm_max_model_length"] = config.vllm_max_model_length
    for name, limit in limits.items():
        if limit and longest + config.max_completion_length > limit:
            notes.warnings.append(
                f"the longest prompt, {longest:,} tokens, and trl.max_completion_length "
                f"{config.max_completion_length:,} come to more than {name} of {limit:,}; "
                "`ktae data prepare --max-prompt-tokens` leaves such problems out"
            )


def _try_reward(run: Run, notes: _Notes) -> str:
    """What math_answer makes of the accepted answers themselves, boxed."""
    rows = run.train_rows[:_TRIED]
    completions = [rf"The answer is $\boxed{{{answers[0]}}}$." for answers in rows["answers"]]
    rewards = run.rewards["math_answer"](completions, answers=rows["answers"])
    right = sum(reward == 1.0 for reward in rewards)
    if right < len(rewards):
        index = next(i for i, reward in enumerate(rewards) if reward != 1.0)
        notes.warnings.append(
            f"math_answer gives {rewards[index]} to the accepted answer {rows['answers'][index][0]!r} itself, boxed; "
            f"{len(rewards) - right} of the first {len(rewards)} answers are not taken"
        )
    return rf"1 for {right} of the first {len(rewards)} answers, put in \boxed{{}}"


def _model(recipe: Recipe, policy: _Policy) -> list[tuple[str, str]]:
    rows = [("path", recipe.model.path)]
    config, sizes, tokenizer = policy.config, policy.sizes, policy.tokenizer
    if config is None:
        return [*rows, ("", "not at hand")]
    if sizes is not None:
        tied = "tied" if sizes.tied else "untied"
        rows += [
            (
                "architecture",
                f"{config.model_type}, {sizes.layers} layers of width {sizes.hidden:,}, "
                f"vocabulary {sizes.vocabulary:,}, {tied} embeddings",
            ),
            ("parameters", f"{sizes.parameters:,}, {policy.source}"),
            ("context", f"{sizes.context:,} tokens" if sizes.context else "not said"),
        ]
    if tokenizer is not None:
        pad = repr(tokenizer.pad_token) if tokenizer.pad_token else "none of its own, so the end token"
        template = "with" if tokenizer.chat_template else "without"
        rows.append(("tokenizer", f"ends with {tokenizer.eos_token!r}, pads with {pad}; {template} a chat template"))
    return rows


def _weights(recipe: Recipe, policy: _Policy) -> str:
    """Precision of the weights as they are loaded; `auto` of a GGUF file or of a configuration without one: float32."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    if policy.config is None:
        return "unknown"
    return str(policy.config.dtype or torch.float32).removeprefix("torch.")


# Memory


def _memory(
    recipe: Recipe, config: Any, policy: _Policy, prompts: _Prompts | None, strategy: str | None, notes: _Notes
) -> tuple[str, Group]:
    sizes = policy.sizes
    assert sizes is not None
    gpu = torch.accelerator.is_available() or config.use_vllm
    world = processes()
    sharding = "ZeRO-3" if strategy == "ZeRO-3" else "FSDP2" if strategy and strategy.startswith("FSDP") else None
    layouts = [(world, sharding)]
    if gpu and sharding is None and not recipe.lora:
        layouts.append((max(world, 8), "FSDP2"))
    loads = [_load(recipe, config, policy, prompts, count, sharding) for count, sharding in layouts]
    names = [
        f"{load.processes} process{'es' if load.processes > 1 else ''}{f', {load.sharding}' if load.sharding else ''}"
        for load in loads
    ]
    estimates = [estimate(sizes, load) for load in loads]
    totals = [peaks(terms) for terms in estimates]
    unit, factor = ("GiB", 2**30) if max(totals[0].values()) >= 2**30 else ("MiB", 2**20)

    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=28)
    for _ in loads:
        table.add_column(justify="right")
    origin = "how the first figure comes about" if len(loads) > 1 else ""
    table.add_row("", *(Text(name, style="bold") for name in names), Text(origin, style="dim"))
    for name in _in_order(estimates):
        cells = [next((term for term in terms if term.name == name), None) for terms in estimates]
        figures = (f"{cell.bytes / factor:,.2f}" if cell else "" for cell in cells)
        table.add_row(Text(name), *figures, Text(next(cell.formula for cell in cells if cell), style="dim"))
    phases: dict[Phase, None] = dict.fromkeys(phase for total in totals for phase in total)
    for phase in phases:
        figures = (f"{total.get(phase, 0) / factor:,.2f}" for total in totals)
        explanation = {"evaluating": "on the main process, before and after training"}
        table.add_row(Text(f"while {phase}", style="bold"), *figures, Text(explanation.get(phase, ""), style="dim"))
    lines = [_need(name, total, config, unit, factor) for name, total in zip(names, totals, strict=True)]
    if config.use_vllm and config.vllm_mode == "colocate":
        lines.append(_share(sizes, loads[0], config))
    if prompts is None:
        lines.append(f"prompts are taken to have {loads[0].prompt:,} tokens")
    _check_fits(totals[0], config, notes)
    where = "GPU" if gpu else "process"
    return f"Memory of one {where}, {unit}", Group(table, *(Text(line) for line in lines))


def _in_order(estimates: list[list[Term]]) -> list[str]:
    """The names of all terms; one that only a later estimate has follows what it follows there."""
    names: list[str] = []
    for terms in estimates:
        place = 0
        for term in terms:
            if term.name not in names:
                names.insert(place, term.name)
            place = names.index(term.name) + 1
    return names


def _load(recipe: Recipe, config: Any, policy: _Policy, prompts: _Prompts | None, world: int, sharding: Any) -> Load:
    assert policy.sizes is not None
    batch, evaluation = recipe.batch, recipe.evaluation
    completion = config.max_completion_length
    prompt = min(_ASSUMED_PROMPT, (policy.sizes.context or math.inf) - completion)
    if config.use_vllm and config.vllm_max_model_length:
        prompt = config.vllm_max_model_length - completion
    if prompts is not None:
        prompt = max(prompts.lengths)
    rollouts = batch.prompts * batch.rollouts
    weight_bytes = 4 if _weights(recipe, policy) in ("float32", "unknown") else 2
    return Load(
        per_device=batch.per_device,
        sampled=rollouts // world,
        rollouts=rollouts,
        prompt=max(1, int(prompt)),
        completion=completion,
        weight_bytes=weight_bytes,
        autocast=config.bf16 or config.fp16,
        checkpointing=config.gradient_checkpointing,
        reference=config.beta > 0 and recipe.lora is None,
        adapters=policy.trained if recipe.lora else 0,
        states=_STATES.get(getattr(config.optim, "value", config.optim), 2),
        vllm=config.use_vllm,
        ktae=any(ALGORITHMS[name].ktae for name in recipe.algorithms),
        evaluated=evaluation.batch_size if evaluation.samples or evaluation.greedy else 0,
        processes=world,
        sharding=sharding if world > 1 else None,
        accelerator=torch.accelerator.is_available() or config.use_vllm,
    )


def _needed(totals: dict[Phase, int], config: Any) -> tuple[float, Phase, bool]:
    """Bytes that a device must have, the phase that takes most, and whether vLLM has its share of the device then."""
    share = config.vllm_gpu_memory_utilization if config.use_vllm and config.vllm_mode == "colocate" else 0.0

    def taken(phase: Phase) -> bool:
        asleep = config.vllm_enable_sleep_mode and phase != "sampling"
        return share > 0 and phase != "evaluating" and not asleep

    needed: dict[Phase, float] = {phase: total / (1 - share * taken(phase)) for phase, total in totals.items()}
    phase = max(needed, key=lambda phase: needed[phase])
    return needed[phase], phase, taken(phase)


def _need(name: str, totals: dict[Phase, int], config: Any, unit: str, factor: int) -> str:
    needed, phase, shared = _needed(totals, config)
    return f"{name}: at least {needed / factor:,.1f} {unit} while {phase}{', vLLM beside it' if shared else ''}"


def _share(sizes: Architecture, load: Load, config: Any) -> str:
    card = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else _CARD
    share = config.vllm_gpu_memory_utilization * card
    cache = share - 2 * sizes.parameters / config.vllm_tensor_parallel_size
    full = max(0, int(cache / cache_bytes(sizes, 1, load.tokens, 2))) * config.vllm_tensor_parallel_size
    return (
        f"vLLM's {config.vllm_gpu_memory_utilization:g} of {card / 1e9:.0f} GB: {share / 2**30:.1f} GiB, "
        f"{max(0.0, cache) / 2**30:.1f} of them for caches, {full:,} rollouts of {load.tokens:,} tokens at a time"
    )


def _check_fits(totals: dict[Phase, int], config: Any, notes: _Notes) -> None:
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0).total_memory
        needed, phase, _ = _needed(totals, config)
        if needed > card:
            notes.warnings.append(
                f"memory: {needed / 2**30:,.1f} GiB are needed while {phase}, and this GPU has {card / 2**30:,.1f}; "
                "lower batch.per_device, or shard the model (recipes/README.md)"
            )


def _out(recipe: Recipe) -> Path:
    """Where the run would go, by default; part of TRL's settings, not created."""
    return Path("runs") / recipe.name
