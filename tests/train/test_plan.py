"""Dry runs through the command line, of right recipes and of recipes with mistakes, and the memory they tell."""

import shutil
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("trl")

import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from ktae import KTAEConfig
from ktae.chain.model import CHECKPOINT
from ktae.chain.problems import exact_match
from ktae.cli import main
from ktae.files.json_lines import write
from ktae.models.load import load_model
from ktae.train.plan import memory
from ktae.train.recipe import load_recipe
from ktae.train.run import Run, lora_config, skeleton
from ktae.train.settings import grpo_config

# The libraries' deprecations among themselves, as in `ktae.train.run`.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
ROWS = [{"prompt": f"{n} S1 +1 ?", "answers": [str(n + 1)]} for n in range(40)]
CHAT = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The working directory, with rows and a model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    for name, rows in (("rows", ROWS), ("chat", CHAT), ("raw", [{"Question": "1?", "final": "2"}])):
        write(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


@pytest.fixture
def dry_run(folder, capsys):
    """Exit status, what was printed (white space made single spaces) and the errors."""

    def dry_run(*arguments):
        code = main(["train", "quickstart", "--dry-run", *arguments])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return dry_run


def test_a_plan_says_what_will_happen(folder, dry_run):
    before = sorted(folder.rglob("*"))
    code, plan, err = dry_run(
        *("--data", "{source: rows.jsonl, test_rows: 8}", "--model.path", "model", "--model.dtype", "bfloat16"),
        *("--algorithms", "[grpo, dapo+ktae_context]", "--ktae_context.scale", "3"),
    )
    assert (code, err) == (0, "")
    for words in (
        "GRPO loss_type grpo, epsilon 0.2, epsilon_high None, beta 0.0, learning_rate 0.0005, lr_scheduler_type linear",
        "DAPO+KTAE in context loss_type dapo, epsilon 0.2, epsilon_high 0.28, beta 0.0",
        "dynamic_sampling 10, overlong quarter " + str(replace(KTAEConfig.recommended(), scale=3.0)),
        "correct where exact_match > 0",
        "16 problems x 8 rollouts, 4 updates",
        "300 updates, 75 generations, 37.5 times through the data; seed 0",
        "rows.jsonl: 32 rows to train on, 8 held out",
        "5 tokens in the median, at most 5",
        "365,472 parameters, 365,472 trained; completions end with '<eos>'",
        "memory 0.00272 GiB",  # 365,472 x 4 x 2 bytes
        "Note model.dtype: the bfloat16 weights themselves are trained",
    ):
        assert words in plan
    assert sorted(folder.rglob("*")) == before, "a dry run writes nothing"


def test_chat_prompts_and_boxed_answers(folder, dry_run):
    (folder / "model" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}ans")
    settings = ["--rewards", "[math_answer]", "--model.path", "model", "--trl.max_completion_length", "125"]
    settings += ["--data", "{source: chat.jsonl, test_rows: 4}"]
    code, plan, err = dry_run(*settings)
    assert (code, err) == (0, "")
    for words in ("S1 +1 ? ans", "it takes 40 of 40 accepted", "come to more than the model's context of 128"):
        assert words in plan
    (folder / "model" / "chat_template.jinja").unlink()
    message = "ktae: the prompts are chat messages, and the tokenizer of model has no chat template\n"
    assert dry_run(*settings) == (2, "", message)
    (folder / "model" / "model.safetensors").unlink()
    assert "the folder model holds no weights" in dry_run(*settings)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch.per_device", "24"], "does not divide into passes"),
        (["--data.train_rows", "15"], "fewer than batch.prompts 16"),
        (["--trl.save_steps", "6"], "trl.save_steps must be a multiple of the 4 updates"),
        (["--trl.save_total_limit", "1"], "trl.save_total_limit must be at least 2"),
        (["--lora.r", "-1"], "should be a positive integer"),
        (["--trl.reward_weights", "[1, 2]"], "trl.reward_weights must be one a reward, 1, got [1, 2]"),
        (["--trl.lr_scheduler_type", "steep"], "TRL refuses the settings of grpo"),
        (["--trl.eval_strategy", "epoch", "--data.test_rows", "0"], "trl.eval_strategy must be no without held-out"),
        (["--algorithms", "[dapo]", "--overlong", "65"], "overlong must be at least 1 and at most trl.max"),
        (["--rewards", "[exact]"], "got 'exact'; did you mean 'exact_match'?"),
        (["--algorithms", "[grpo+nowhere:own]"], "there is no module 'nowhere'"),
        (["--data", "{source: none.jsonl}"], "none.jsonl does not exist"),
        (["--data", "{source: raw.jsonl}"], "raw.jsonl has no column 'answers' but ['Question', 'final']; make a file "
         "with prompt and answers: ktae data prepare raw.jsonl --out prepared.jsonl"),
        (["--model.path", "runs/quickstrat/grpo/model"], "runs/quickstrat/grpo/model does not exist"),
        (["--model.path", "a.gguf", "--trl.beta", "0.1"], "trl.beta must be 0 with a .gguf file"),
        (["--model.path", "Qwen/Qwen2.5-Mth-1.5B"], "is no local folder, and the Hugging Face hub does not"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
def test_mistakes_are_one_line_at_once(monkeypatch, capsys, folder, arguments, message, dry):
    waits, sleep, main_thread = [], time.sleep, threading.get_ident()  # graders of other tests have threads of theirs
    patched = {True: waits.append, False: sleep}
    monkeypatch.setattr("time.sleep", lambda seconds: patched[threading.get_ident() == main_thread](seconds))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code = main(["train", "quickstart", *arguments, *["--dry-run"] * dry])
    out, err = capsys.readouterr()
    assert (code, out, waits) == (2, "", []), "no retry is made"
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "runs").exists()


def test_the_planned_length_is_the_trainers(dry_run, tmp_path):
    """Updates of two and a half times through the data, the incomplete generation of each left out."""
    small = ["--data.train_rows", "37", "--data.test_rows", "1", "--trl.max_steps", "-1", "--trl.num_iterations", "2"]
    small += ["--trl.num_train_epochs", "2.5", "--trl.save_steps", "8", "--trl.max_completion_length", "4"]
    assert "40 updates, 5 generations, 2.5 times through the data" in dry_run(*small)[1]

    from ktae.train.trainer import RunTrainer

    recipe = load_recipe("quickstart", small)
    model, tokenizer = load_model(recipe.model)
    trainer = RunTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=exact_match,
        args=grpo_config(recipe, "grpo", tmp_path),
        train_dataset=Run(recipe, tmp_path).train_rows,
    )
    *_, total = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert total == 40


@pytest.mark.parametrize("lora", [None, {"r": 3, "target_modules": ["q_proj", "down_proj"]}])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_the_memory_is_that_of_weights_gradients_and_optimizer(dtype, size, lora):
    config = AutoConfig.from_pretrained(CHECKPOINT)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    if lora:
        model = get_peft_model(model, lora_config(lora))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.ones(2, 5, dtype=torch.long)).logits.float().sum().backward()
    optimizer.step()
    states = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    held = [*model.parameters(), *(parameter.grad for parameter in trained), *states]
    assert memory(skeleton(config, lora), size) == sum(one.numel() * one.element_size() for one in held)
