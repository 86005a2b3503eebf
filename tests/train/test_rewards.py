"""Reward functions, called directly and by TRL's own trainer."""

import sys

import pytest

pytest.importorskip("math_verify")
pytest.importorskip("pebble")

from ktae.chain import problems as chain
from ktae.cli import main
from ktae.train.rewards import check_threshold, load_reward, math_answer


def chat(*contents):
    return [{"role": "assistant", "content": content} for content in contents]


def test_scores_texts():
    completions = [r"\boxed{\frac12}", "It is 3.", "It is 4.", "I do not know."]
    assert math_answer(completions, ["0.5", ["2", "3.0"], "5", "6"]) == [1.0, 1.0, 0.0, 0.0]


def test_scores_the_last_assistant_message_of_a_chat():
    completions = [
        chat("It is 3."),
        chat("It is 3.", "No, it is 4."),
        [*chat("It is 3."), {"role": "tool", "content": "4"}],
        chat([{"type": "text", "text": "It is "}, {"type": "text", "text": "3."}]),
        [{"role": "assistant", "content": None, "tool_calls": []}],
        [],
    ]
    assert math_answer(completions, ["3"] * 6) == [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]


def test_what_cannot_be_judged_is_wrong_and_counted():
    logged = []
    rewards = math_answer(
        [r"\boxed{9^{9^{9}}}", r"\boxed{x+1}", "It is 3.", "None."],
        ["1", "1+x", "4", "5"],
        log_metric=lambda name, value: logged.append((name, value)),
        another_column=[1, 2, 3, 4],
    )
    assert rewards == [0.0, 1.0, 0.0, 0.0]
    assert logged == [("ktae/answers_missing", 1), ("ktae/grader_timeouts", 1), ("ktae/grader_errors", 0)]
    with pytest.raises(ValueError, match="got 2 predictions but 1 answers"):
        math_answer(["1", "2"], ["1"])


OWN = """
import functools

def short(completions, **columns):
    return [0.0]

def graded(**columns):
    from ktae.chain.problems import exact_match
    return [0.1 + 0.9 * reward for reward in exact_match(**columns)]

async def later(**columns):
    return [0.0]

partial, limit = functools.partial(short), 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "broken_rewards.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_rewards", None)


def test_built_in_rewards_and_import_paths(own):
    assert load_reward("math_answer") is math_answer
    assert load_reward("exact_match") is chain.exact_match
    assert load_reward("own_rewards:short")(completions=["a"]) == [0.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math_anwser", r"reward must be one of exact_match, .*, got 'math_anwser'; did you mean 'math_answer'\?"),
        ("", r"reward must be one of .*, got ''"),
        ("no_such_package.rewards:score", r"there is no module 'no_such_package'"),
        ("ktae.train.rewardz:math_answer", r"there is no module 'ktae.train.rewardz'"),
        ("own_rewards:shrt", r"own_rewards has no function 'shrt'; did you mean 'short'\?"),
        ("own_rewards:limit", r"own_rewards has no function 'limit'"),
        ("own_rewards:later", r"'own_rewards:later' must be a plain function, got "),
        ("own_rewards:partial", r"'own_rewards:partial' must be a plain function, got "),
        (":score", r"or 'package.module:function', got"),
        ("ktae.train.rewards:", r"or 'package.module:function', got"),
        (".rewards:math_answer", r"or 'package.module:function', got"),
    ],
)
def test_what_is_no_reward_is_refused(own, name, message):
    with pytest.raises(ValueError, match=message):
        load_reward(name)


def test_an_error_inside_a_reward_module_is_not_hidden(own):
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_reward("broken_rewards:score")


def test_rewards_are_tried_beforehand():
    rows = {"prompt": ["1?", "2?"], "answers": [["1"], ["2"]]}
    with pytest.raises(ValueError, match="must return a value a completion, 2, got 1"):
        check_threshold(lambda **columns: [0.0], rows, 0.0)
    note = check_threshold(lambda completion_ids, **columns: [0.0], rows, 0.0)
    assert "it cannot be tried on accepted answers: TypeError" in note
    assert not check_threshold(lambda completions, **columns: [0.0] * len(completions), rows, 0.0)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_a_run_in_which_all_counts_as_correct_is_refused(own, tmp_path, monkeypatch, capsys):
    """Its form keeps the reward from being tried beforehand: the first evaluation shows it."""
    monkeypatch.chdir(tmp_path)
    small = ["--data.test_rows", "50", "--trl.max_completion_length", "40", "--evaluation.greedy", "false"]
    assert main(["train", "quickstart", "--rewards", "[own_rewards:graded]", *small]) == 2
    out, err = capsys.readouterr()
    assert "before training: all rewards, 0.1 to 1, are above correct_above 0, so all count as correct" in err
    assert err.count("\n") == 1
    assert "accuracy" not in out


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_trl_scores_and_logs_with_it(tmp_path):
    """One step of TRL's trainer on a model that writes chains of arithmetic."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from ktae.models.load import Model, load_model

    model, tokenizer = load_model(Model("python:ktae/chain/weights"))
    settings = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 40}
    settings |= {"logging_steps": 1, "report_to": "none", "save_strategy": "no", "bf16": False, "use_cpu": True}
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=math_answer,
        args=trl.GRPOConfig(output_dir=str(tmp_path), gradient_checkpointing=False, **settings),
        train_dataset=Dataset.from_dict({"prompt": ["5 S1 +1 ?", "7 S1 +2 ?"], "answers": [["6"], ["9"]]}),
        processing_class=tokenizer,
    )
    trainer.train()
    (step,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert step["ktae/grader_timeouts"] == step["ktae/grader_errors"] == 0
    assert step["ktae/answers_missing"] in range(9)
    assert step["rewards/math_answer/mean"] == step["reward"]
