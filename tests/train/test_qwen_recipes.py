"""The recipes for Qwen2.5-Math: the paper's settings, the commands on their top, and accelerate's configurations."""

import importlib
import re
import shlex
from argparse import ArgumentParser
from importlib import resources
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl")

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from trl.scripts.vllm_serve import ScriptArguments

from ktae.cli import COMMANDS
from ktae.train.recipe import load_recipe
from ktae.train.settings import grpo_config, overlong_buffer

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = [f"qwen2.5_math_{size}_{name}_ktae" for size in ("1.5b", "7b") for name in ("grpo", "dapo")]
ALL = {path.stem: path for path in sorted(RECIPES.glob("qwen2.5_math_*.yaml"))}


def commands(path):
    """The commands in a recipe's first lines, without the variables before them, as lists of words."""
    lines = [line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(line[3:] for line in lines if line.startswith("   ")).replace("\\\n", " ")
    return [
        [word for number, word in enumerate(shlex.split(line)) if number or "=" not in word]
        for line in text.splitlines()
    ]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the libraries' deprecations among themselves
@pytest.mark.parametrize("name", PAPER)
def test_what_trl_makes_of_them_on_eight_gpus(name, monkeypatch, tmp_path):
    monkeypatch.setattr("ktae.train.settings.processes", lambda: 8)
    recipe, dapo = load_recipe(str(ALL[name])), "dapo" in name
    config = grpo_config(recipe, recipe.algorithms[0], tmp_path)
    per_device = 4 if "7b" in name else 8
    wanted = {
        "steps_per_generation": 1024 * 16 // 8 // per_device,
        "gradient_accumulation_steps": 128 * 16 // 8 // per_device,  # so 8 updates a generation
        **{"num_generations": 16, "max_completion_length": 3072, "importance_sampling_level": "token"},
        **({"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.0} if dapo else {"loss_type": "grpo", "beta": 0.001}),
        **{"learning_rate": 1e-6, "lr_scheduler_type": "constant", "warmup_steps": 0},
        **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "vllm_importance_sampling_correction": False},
        **{"bf16": True, "gradient_checkpointing": True},
    }
    assert {field: getattr(config, field) for field in wanted} == wanted
    assert overlong_buffer(recipe, recipe.algorithms[0], 3072) == (512 if dapo else None)


@pytest.mark.parametrize("name", ALL)
def test_the_commands_on_top(name):
    path, launched = ALL[name], set()
    recipe = load_recipe(str(path))
    assert recipe.name == name
    for asked in re.findall(r"--algorithms '(.*?)'", path.read_text()):
        load_recipe(str(path), ["--algorithms", asked])
    for command in commands(path):
        if command[:2] == ["accelerate", "launch"]:
            arguments = launch_command_parser().parse_args(command[2:])
            if arguments.config_file:
                assert (RECIPES.parent / arguments.config_file).is_file()
            assert (arguments.training_script, arguments.module) == ("ktae.cli", True)
            command = ["ktae", *arguments.training_script_args]
        launched.add(command[1])
        if command[0] == "trl":
            options = dict(zip(command[2::2], command[3::2], strict=True))
            assert {option.removeprefix("--") for option in options} <= ScriptArguments.__dataclass_fields__.keys()
            assert options["--model"] == recipe.model.path
            continue
        parser = ArgumentParser()
        importlib.import_module(COMMANDS[command[1]][0]).add_arguments(parser)
        arguments, rest = parser.parse_known_args(command[2:])
        if command[1] == "train":
            assert arguments.recipe == f"recipes/{name}.yaml"
            load_recipe(str(path), rest)
        if command[1] == "data":
            assert (str(arguments.out), arguments.tokenizer) == (recipe.data.source, recipe.model.path)
            assert arguments.max_prompt_tokens + recipe.trl["max_completion_length"] == 4096
            assert arguments.levels == ([3, 4, 5] if "7b" in name else None)
    assert {"data", "train"} <= launched <= {"data", "train", "eval", "report", "compare", "vllm-serve"}


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_accelerate_reads_its_configurations(name):
    config = load_config_from_file(str(RECIPES / "accelerate" / f"{name}.yaml"))
    assert (config.num_processes, config.mixed_precision, config.use_cpu) == (8, "bf16", False)
    trls = yaml.safe_load((resources.files("trl") / f"accelerate_configs/{name}.yaml").read_text())
    assert config.distributed_type.value == trls["distributed_type"]
    assert config.deepspeed_config == trls.get("deepspeed_config", {})
    assert config.fsdp_config.get("fsdp_state_dict_type") in (None, "FULL_STATE_DICT")
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config.keys() | config.deepspeed_config.keys() <= known
