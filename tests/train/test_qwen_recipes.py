"""The recipes for Qwen2.5-Math: the paper's settings, the commands on their top, and accelerate's configurations."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
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
from ktae.models.load import resolve
from ktae.train.recipe import load_recipe

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


IN_ONE_OF_EIGHT_PROCESSES = """
import json, sys, torch
from pathlib import Path
from torch.testing._internal.distributed.fake_pg import FakeStore
from ktae.cli import main
from ktae.train.recipe import load_recipe
from ktae.train.settings import grpo_config
torch.distributed.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
for path in sys.argv[2:]:
    print("NEXT")
    model = ["--model.path", "7b" if "7b" in path else "1.5b", "--data.source", "rows.jsonl"]
    assert main(["train", path, *model, "--dry-run"]) == 0
    recipe = load_recipe(path)
    config = grpo_config(recipe, recipe.algorithms[0], Path("out"))
    print("SETTINGS", json.dumps({field: getattr(config, field) for field in sys.argv[1].split(",")}, default=str))
"""
FIELDS = (
    "generation_batch_size steps_per_generation gradient_accumulation_steps num_generations loss_type epsilon_high "
    "beta use_bias_correction_kl learning_rate lr_scheduler_type warmup_steps temperature top_p top_k bf16 "
    "max_completion_length gradient_checkpointing reward_weights importance_sampling_level "
    "vllm_importance_sampling_correction"
)
# The models' sizes: hidden, heads, key-value heads, intermediate, vocabulary, tied.
SIZES = {"1.5b": (1536, 12, 2, 8960, 151936, True), "7b": (3584, 28, 4, 18944, 152064, False)}
NAMES = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """What a dry run prints and TRL's settings, by recipe; models of the right sizes without weights."""
    folder = tmp_path_factory.mktemp("dry")
    for name, (*sizes, tied) in SIZES.items():
        (folder / name).mkdir()
        for file in Path(resolve("python:ktae/chain/weights")).glob("token*"):
            (folder / name / file.name).write_bytes(file.read_bytes())
        config = {"model_type": "qwen2", "num_hidden_layers": 28, "tie_word_embeddings": tied}
        config |= dict(zip(NAMES, sizes, strict=True))
        (folder / name / "config.json").write_text(json.dumps(config))
        (folder / name / "model.safetensors").touch()
    rows = [{"prompt": f"{n} S1 +1 ?", "answers": [str(n + 1)]} for n in range(1300)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = {"WORLD_SIZE": "8", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "localhost"}
    command = ["-c", IN_ONE_OF_EIGHT_PROCESSES, FIELDS.replace(" ", ","), *map(str, ALL.values())]
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | process | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    printed = [" ".join(part.split()).split(" SETTINGS ") for part in result.stdout.split("NEXT")[1:]]
    return {name: (plan, json.loads(settings)) for name, (plan, settings) in zip(ALL, printed, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_dry_run_for_eight_processes(planned, name):
    parameters = "7,615,616,512" if "7b" in name else "1,543,714,304"
    for words in (
        "1,580,643,840 parameters, 36,929,536 trained" if "lora" in name else f"{parameters} parameters, {parameters}",
        f"learning_rate {'1e-05' if 'lora' in name else '1e-06'}, lr_scheduler_type constant",
        "beta 0.0," if "dapo" in name else "beta 0.001,",
        f"pass(es) of {4 if '7b' in name else 8} on 8 process(es)",
        "it takes 40 of 40 accepted answers",
        "Note vllm, which the recipe's trl section asks for, is not installed",
    ):
        assert words in planned[name][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_what_trl_makes_of_them_on_eight_gpus(planned, name):
    made, dapo = planned[name][1], "dapo" in name
    per_device = 4 if "7b" in name else 8
    assert made == {
        "generation_batch_size": 1024 * 16,
        "steps_per_generation": 1024 * 16 // 8 // per_device,
        "gradient_accumulation_steps": 128 * 16 // 8 // per_device,  # so 8 updates a generation
        "num_generations": 16,
        "loss_type": "dapo" if dapo else "grpo",
        "epsilon_high": 0.28 if dapo else None,
        "beta": 0.0 if dapo else 0.001,
        "use_bias_correction_kl": dapo,  # TRL's default, of no effect without a KL term
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": 3072,
        "bf16": True,
        "gradient_checkpointing": True,
        "reward_weights": None,
        "importance_sampling_level": "token",
        "vllm_importance_sampling_correction": False,
    }


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
