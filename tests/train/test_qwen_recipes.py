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
PAPER = {
    f"qwen2.5_math_{size}_{name}": RECIPES / f"qwen2.5_math_{size}_{name}.yaml"
    for size in ("1.5b", "7b")
    for name in ("grpo_ktae", "dapo_ktae")
}
ALL = {path.stem: path for path in sorted(RECIPES.glob("qwen2.5_math_*.yaml"))}


def commands(path):
    """The commands in a recipe's first lines, without the variables before them, as lists of words."""
    lines = [line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(line[3:] for line in lines if line.startswith("   ")).replace("\\\n", " ")
    return [
        [word for number, word in enumerate(shlex.split(line)) if number or "=" not in word]
        for line in text.splitlines()
    ]


def test_all_are_there():
    extra = {f"qwen2.5_math_1.5b_grpo_ktae_{what}" for what in ("lora", "single_gpu")}
    assert set(ALL) == set(PAPER) | extra


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the libraries' deprecations among themselves
@pytest.mark.parametrize("name", PAPER)
def test_what_trl_makes_of_them_on_eight_gpus(name, monkeypatch, tmp_path):
    monkeypatch.setattr("ktae.train.settings.processes", lambda: 8)
    recipe, dapo = load_recipe(str(PAPER[name])), "dapo" in name
    config = grpo_config(recipe, recipe.algorithms[0], tmp_path)
    per_device = 4 if "7b" in name else 8
    wanted = {
        "steps_per_generation": 1024 * 16 // 8 // per_device,
        "gradient_accumulation_steps": 128 * 16 // 8 // per_device,  # so 8 updates a generation
        "num_generations": 16,
        "loss_type": "dapo" if dapo else "grpo",
        "epsilon_high": 0.28 if dapo else None,
        "beta": 0.0 if dapo else 0.001,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": 3072,
        "bf16": True,
        "gradient_checkpointing": True,
        "importance_sampling_level": "token",
        "vllm_importance_sampling_correction": False,
    }
    assert {field: getattr(config, field) for field in wanted} == wanted
    assert overlong_buffer(recipe, recipe.algorithms[0], 3072) == (512 if dapo else None)


@pytest.mark.parametrize("name", ALL)
def test_the_commands_on_top(name):
    path = ALL[name]
    text, recipe = path.read_text(), load_recipe(str(path))
    assert recipe.name == name
    assert re.search(r"Checked by a dry run only, never run on (GPUs|a GPU)\.", text)
    ablations = ("--ktae.fisher_weight 0", "--ktae.information_gain_weight 0", "--ktae.term_frequency_weight 0")
    assert all(ablation in text for ablation in ablations)
    for asked in re.findall(r"--algorithms '(.*?)'", text):
        load_recipe(str(path), ["--algorithms", asked])
    launched = set()
    for command in commands(path):
        if command[:2] == ["accelerate", "launch"]:
            arguments = launch_command_parser().parse_args(command[2:])
            if arguments.config_file:
                assert (RECIPES.parent / arguments.config_file).is_file()
            assert (arguments.training_script, arguments.module) == ("ktae.cli", True)
            command = ["ktae", *arguments.training_script_args]
        if command[0] == "ktae":
            parser = ArgumentParser()
            importlib.import_module(COMMANDS[command[1]][0]).add_arguments(parser)
            arguments, rest = parser.parse_known_args(command[2:])
            launched.add(command[1])
            if command[1] == "train":
                assert arguments.recipe == f"recipes/{name}.yaml"
                load_recipe(str(path), rest)
            if command[1] == "data":
                assert str(arguments.out) == recipe.data.source
                assert arguments.tokenizer == recipe.model.path
                assert arguments.max_prompt_tokens + recipe.trl["max_completion_length"] == 4096
                assert arguments.levels == ("3-5" if "7b" in name else None)
        elif command[0] == "trl":
            assert command[1] == "vllm-serve"
            options = dict(zip(command[2::2], command[3::2], strict=True))
            assert {option.removeprefix("--") for option in options} <= ScriptArguments.__dataclass_fields__.keys()
            assert options["--model"] == recipe.model.path
        else:
            pytest.fail(f"unknown command {command}")
    assert {"data", "train"} <= launched


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_accelerate_reads_its_configurations(name):
    path = RECIPES / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert (config.num_processes, config.mixed_precision, config.use_cpu) == (8, "bf16", False)
    trls = yaml.safe_load((resources.files("trl") / f"accelerate_configs/{name}.yaml").read_text())
    assert config.distributed_type.value == trls["distributed_type"]
    assert config.deepspeed_config == trls.get("deepspeed_config", {})
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    else:
        assert config.deepspeed_config["zero3_save_16bit_model"] is True
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config.keys() | config.deepspeed_config.keys() <= known
