"""Dry runs through the command line: with nothing at hand, with everything at hand, and of recipes with mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

from ktae.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
# The libraries' deprecations among themselves, as in `ktae.train.run`.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


# Several dry runs in one process, which saves time.
SCRIPT = """
import json, os, sys
from ktae.cli import main
for environment, arguments in json.loads(sys.argv[1]):
    os.environ.update(environment)
    print("NEXT")
    assert main(["train", *arguments, "--dry-run"]) == 0
"""


def python(*arguments, cwd, **environment):
    """A process for which there is no hub and no cache; its output, white space made single spaces."""
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(cwd / "no cache"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | nowhere | environment,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return " ".join(result.stdout.split())


def dry_runs(cases, cwd, **environment):
    """What each of the (environment, arguments) prints."""
    return python("-c", SCRIPT, json.dumps(cases), cwd=cwd, **environment).split("NEXT ")[1:]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """The plan of each recipe in an empty folder, without hub and GPU."""
    folder = tmp_path_factory.mktemp("empty")
    paths = sorted(RECIPES.glob("*.yaml"))
    printed = dry_runs([({}, [str(path)]) for path in paths], folder)
    assert list(folder.iterdir()) == [], "a dry run writes nothing"
    return {path.stem: plan for path, plan in zip(paths, printed, strict=True)}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_where_nothing_is_at_hand(plans, name):
    plan = plans[name]
    for section in ("Algorithm", "Training", "Batch", "Data", "Model", "Not checked here"):
        assert section in plan
    assert "the hub does not answer" in plan
    assert "make the folder" in plan
    if not name.startswith("qwen"):
        return
    parameters = "7,615,616,512" if "7b" in name else "1,543,714,304"
    for words in (
        f"parameters {parameters}",
        "context 4,096 tokens",
        "1e-05" if "lora" in name else "learning rate 1e-06, constant",
        "temperature 1, at most 3,072 tokens; vLLM in 0.4 of each GPU, asleep meanwhile",
        "Memory of one GPU, GiB",
        "vllm is not installed `pip install vllm`",
        "no GPU here",
        "`ktae data prepare SOURCE --out data/math_train",
    ):
        assert words in plan
    assert ("dynamic sampling 10 rounds at most, then fill" in plan) == ("dapo" in name)
    assert ("over the last 512 of 3,072 tokens" in plan) == ("dapo" in name)
    assert ("ratios 0.8 to 1.28" in plan) == ("dapo" in name)
    assert ("KL to the start 0.001, k3 advantages" in plan) == ("grpo" in name)
    assert ("Fisher 1, IG 1, tf 1; scale 1" in plan) == ("ktae" in name)
    assert ("LoRA of rank 32, alpha 64, on all-linear: 36,929,536 parameters" in plan) == ("lora" in name)
    assert ("reference model" in plan) == ("grpo" in name and "lora" not in name)
    assert "Most likely not meant" not in plan


def test_as_many_processes_as_the_environment_says(tmp_path):
    recipe = [str(RECIPES / "qwen2.5_math_7b_grpo_ktae.yaml")]
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    zero = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    cases = [({}, recipe), (fsdp, recipe), (zero | {"ACCELERATE_USE_FSDP": "false"}, recipe)]
    either, sharded, deepspeed = plans = dry_runs(cases, tmp_path, WORLD_SIZE="8")
    for plan in plans:
        assert "1,024 problems x 16 rollouts = 16,384, 2,048 of them on each of 8 processes" in plan
        assert "= 2,048, in 64 passes of 4 rollouts on each of 8 processes" in plan
        assert "8 updates a generation" in plan
    assert "8 processes 8 processes, FSDP2" in either
    assert "gradient buckets" in either
    for plan, name in ((sharded, "FSDP2"), (deepspeed, "ZeRO-3")):
        assert f"8 processes, {name}: at least" in plan
        assert "7,615,616,512 x 4 B / 8" in plan
        assert "gradient buckets" not in plan
    assert "deepspeed is not installed `pip install deepspeed`" in deepspeed
    assert "deepspeed" not in sharded


def test_where_everything_is_at_hand(tmp_path):
    rows = [{"prompt": f"{n} S1 +1 ?", "answers": [str(n + 1)], "level": n} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["-m", "ktae.cli", "train", "quickstart", "--dry-run", "--algorithms", "[grpo, dapo_ktae]"]
    plan = python(*command, "--data", "{source: rows.jsonl, test_rows: 8}", cwd=tmp_path)
    for words in (
        "GRPO DAPO+KTAE",
        "up to 1 over the last 16 of 64 tokens",
        "32 to train on, 8 held out",
        "columns prompt, answers, level",
        "tokens of a prompt median 5, at most 5",
        "365,472, counted without loading them",
        "ends with '<eos>', pads with '<pad>'; without a chat template",
        "600 updates, 75 times through the data; 150 generations, 4 updates a generation",
        "Memory of one process, MiB",
        "Everything that a dry run can check has been checked.",
    ):
        assert words in plan
    assert "Not checked here" not in plan
    assert "Most likely not meant" not in plan


# The rest in this process, where everything has been imported.


def here(monkeypatch, capsys, folder, *arguments):
    monkeypatch.chdir(folder)
    code = main(["train", "quickstart", "--dry-run", *arguments])
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), err


def test_chat_prompts_and_boxed_answers(monkeypatch, capsys, tmp_path):
    from ktae.models.load import resolve

    model = tmp_path / "model"
    model.mkdir()
    for file in Path(resolve("python:ktae/chain/weights")).iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}ans")
    rows = [{"question": f"{n} S1 +1 ?", "right": str(n + 1)} for n in range(30)]
    rows[0]["right"] = ""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "{source: rows.jsonl, prompt: '{question}', answer: '{right}', system: well, chat: true, test_rows: 4}"
    settings = [
        "--rewards",
        "[math_answer]",
        "--data",
        data,
        "--model.path",
        "model",
        "--trl.max_completion_length",
        "125",
    ]
    code, plan, err = here(monkeypatch, capsys, tmp_path, *settings)
    assert (code, err) == (0, "")
    assert "with a chat template" in plan
    assert "S1 +1 ? ans tokens of a prompt median 6, at most 6" in plan
    assert "come to more than the model's context of 128" in plan
    assert "of the first 20 answers, put in \\boxed{}" in plan

    (model / "chat_template.jinja").unlink()
    code, _, err = here(monkeypatch, capsys, tmp_path, *settings)
    assert code == 2
    assert err == "ktae: the prompts are chat messages, and the tokenizer of model has no chat template\n"
    (model / "model.safetensors").unlink()
    assert "there are no weights in model" in here(monkeypatch, capsys, tmp_path, "--model.path", "model")[2]


def test_settings_that_are_most_likely_not_meant(monkeypatch, capsys, tmp_path):
    code, plan, _ = here(monkeypatch, capsys, tmp_path, "--model.dtype", "bfloat16")
    assert code == 0
    assert "changes below 1/256 of a weight are lost" in plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch.per_device", "24"], "does not divide into passes"),
        (["--data.train_rows", "15"], "fewer than batch.prompts 16"),
        (["--trl.learning_rat", "1"], "did you mean 'trl.learning_rate'?"),
        (["--trl.save_steps", "6"], "trl.save_steps must be a multiple of the 4 updates"),
        (["--rewards", "[exact]"], "unknown reward 'exact'"),
        (["--data", "{source: modchain, train_rows: 32, prompt: '{x}'}"], "names the column 'x'"),
        (["--data", "{source: none.jsonl}", "--rewards", "[exact]"], "unknown reward 'exact'"),
        (["--data", "{source: none.jsonl}", "--batch.per_device", "24"], "does not divide into passes"),
        (["--model.path", "python:no_such_package/model"], "the Python package 'no_such_package' is not installed"),
        (["--algorithms", "[dapo]", "--overlong.buffer", "65"], "overlong.buffer must be at most"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    code, plan, err = here(monkeypatch, capsys, tmp_path, *arguments)
    assert (code, plan) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_planned_length_is_the_trainers(monkeypatch, capsys, tmp_path):
    """Updates of two and a half times through the data, the incomplete generation of each left out."""
    small = ["--data.train_rows", "37", "--data.test_rows", "1", "--trl.max_steps", "-1", "--trl.num_iterations", "2"]
    small += ["--trl.num_train_epochs", "2.5", "--trl.save_steps", "8", "--trl.max_completion_length", "4"]
    _, plan, _ = here(monkeypatch, capsys, tmp_path, *small)
    assert "40 updates, 2.5 times through the data; 5 generations, 8 updates a generation" in plan

    from ktae.models.load import load_model
    from ktae.train.data import load_data
    from ktae.train.recipe import load_recipe
    from ktae.train.run import load_rewards
    from ktae.train.settings import grpo_config
    from ktae.train.trainer import RunTrainer

    recipe = load_recipe("quickstart", small)
    model, tokenizer = load_model(recipe.model)
    trainer = RunTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=list(load_rewards(recipe).values()),
        args=grpo_config(recipe, "grpo", tmp_path),
        train_dataset=load_data(recipe.data, recipe.seed)[0],
    )
    *_, total = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert total == 40
