"""Reward functions, called directly and by TRL's own trainer."""

import re
import sys

import pytest

pytest.importorskip("math_verify")
pytest.importorskip("pebble")

import torch
from datasets import Dataset

from ktae.chain import problems as chain
from ktae.chain.model import MAX_COMPLETION
from ktae.cli import main
from ktae.models.load import Model, load_model
from ktae.train.rewards import RewardError, answer, check_threshold, load_reward, math_answer


def chat(*contents):
    return [{"role": "assistant", "content": content} for content in contents]


def test_scores_texts_and_the_last_assistant_message_of_a_chat():
    completions = [r"\boxed{\frac12}", "It is 3.", "It is 4.", "I do not know."]
    assert math_answer(completions, ["0.5", ["2", "3.0"], "5", "6"]) == [1.0, 1.0, 0.0, 0.0]
    completions = [
        chat("It is 3.", "No, it is 4."),
        [*chat("It is 3."), {"role": "tool", "content": "4"}],
        chat([{"type": "text", "text": "It is "}, {"type": "text", "text": "3."}]),
        [{"role": "assistant", "content": None, "tool_calls": []}],
        [],
    ]
    assert math_answer(completions, ["3"] * 5) == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_what_cannot_be_judged_is_wrong_and_counted():
    logged = []
    rewards = math_answer(
        [r"\boxed{9^{9^{9}}}", r"\boxed{x+1}", "It is 3.", "None."],
        ["1", "1+x", "4", "5"],
        log_metric=lambda name, value: logged.append((name, value)),
        prompts=["?"] * 4,
        another_column=[1, 2, 3, 4],
    )
    assert rewards == [0.0, 1.0, 0.0, 0.0]
    assert logged == [("ktae/answers_missing", 1), ("ktae/grader_timeouts", 1), ("ktae/grader_errors", 0)]


OWN = """
import functools

limit = 3

def short(completions, **kwargs):
    return [0.0]

async def later(**_):
    return [0.0]

partial = functools.partial(later)
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "broken_rewards.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)


def test_loads_built_in_rewards_and_import_paths(modules):
    assert load_reward("math_answer") is math_answer
    assert load_reward("exact_match") is chain.exact_match
    assert load_reward("own_rewards:short")(completions=["a"]) == [0.0]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("exact", ValueError, r"reward must be one of exact_match, .*, got 'exact'; did you mean 'exact_match'\?"),
        ("", ValueError, r"reward must be one of .*, got ''"),
        ("no_such_package.rewards:score", ValueError, r"there is no module 'no_such_package'"),
        ("ktae.train.rewardz:math_answer", ValueError, r"there is no module 'ktae.train.rewardz'"),
        ("own_rewards:shrt", ValueError, r"own_rewards has no function 'shrt'; did you mean 'short'\?"),
        ("own_rewards:limit", ValueError, r"own_rewards has no function 'limit'"),
        (":score", ValueError, r"or 'package.module:function', got"),
        ("own_rewards:", ValueError, r"or 'package.module:function', got"),
        (".rewards:math_answer", ValueError, r"or 'package.module:function', got"),
        ("own_rewards:later", ValueError, "reward 'own_rewards:later' must be a plain function, got "),
        ("own_rewards:partial", ValueError, "reward 'own_rewards:partial' must be a plain function, got "),
        ("broken_rewards:score", ModuleNotFoundError, "not_installed_anywhere"),
    ],
)
def test_an_unknown_reward_names_the_nearest_right_one(modules, name, error, message):
    with pytest.raises(error, match=message):
        load_reward(name)
    assert "broken_rewards" not in sys.modules


ROWS = {"prompt": ["1?", "2?"], "answers": [["1"], ["2"]]}


def test_what_cannot_be_tried_beforehand_is_said_and_too_few_values_are_refused():
    tried, note = check_threshold(lambda completion_ids, **columns: [0.0], ROWS, 0.0)
    assert not tried
    assert "it cannot be tried on accepted answers: TypeError" in note
    with pytest.raises(ValueError, match="must return a value a completion, 2, got 1"):
        check_threshold(lambda **columns: [0.0], ROWS, 0.0)


@pytest.mark.parametrize(
    ("right", "wrong", "above", "said"),
    [(-1, -2, 0, True), (1, 0.1, 0.5, False), (0.5, 0.5, 0, False), (1, 0.1, 0, True)],
)
def test_a_threshold_that_splits_nothing_is_an_error_or_said(right, wrong, above, said):
    def own(completions, answers, **columns):
        return [right if a[0] in c else wrong for c, a in zip(completions, answers, strict=True)]

    if said and wrong > above:
        with pytest.raises(RewardError, match=re.escape(ALL_CORRECT)):
            check_threshold(own, ROWS, above)
    else:
        assert (ALL_WRONG in check_threshold(own, ROWS, above)[1]) == said


SMALL = ["--data.test_rows", "50", "--data.train_rows", "16", "--trl.max_steps", "12", "--algorithms", "[grpo]"]
SMALL += ["--trl.save_strategy", "no", "--trl.max_completion_length", "40", "--evaluation.greedy", "false"]
ALL_CORRECT = "all rewards, 0.1 to 1, are above correct_above 0, so all count as correct; 0.55 would split them"
ALL_WRONG = "all rewards, -2 to -1, are at most correct_above 0, so all count as incorrect; -1.5 would split them"


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
@pytest.mark.parametrize(("low", "high", "message"), [(0.1, 1, ALL_CORRECT), (-2, -1, ALL_WRONG)])
def test_a_run_whose_rewards_the_threshold_does_not_split_is_refused(tmp_path, monkeypatch, capsys, low, high, message):
    """Its form keeps the reward from being tried beforehand: the first evaluation shows it."""
    (tmp_path / "graded_rewards.py").write_text(
        "from ktae.chain.problems import exact_match\n\n\ndef graded(**columns):\n"
        f"    return [{low} + {high - low} * reward for reward in exact_match(**columns)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("graded_rewards", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", "--rewards", "[graded_rewards:graded]", *SMALL]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "accuracy" not in out
    assert not (tmp_path / "runs" / "quickstart").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_trl_scores_and_logs_with_it(tmp_path):
    import tiny

    rows = Dataset.from_dict({"prompt": ["a b", "c d"], "answers": [["6"], ["9"]]})
    trainer = tiny.build(tmp_path, tiny.RecordedGRPO, reward_funcs=math_answer, train_dataset=rows)
    trainer.train()
    (step,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert step["ktae/grader_timeouts"] == step["ktae/grader_errors"] == 0
    assert 6 < step["ktae/answers_missing"] <= 12, "the tiny model knows letters only"
    assert step["rewards/math_answer/mean"] == step["reward"] == 0


def test_answers_to_held_out_problems_are_scored_one_by_one():
    policy, problems = load_model(Model("python:ktae/chain/weights")), chain.test_problems()[:20]

    def answers(**settings):
        rows = Dataset.from_list(problems)
        return answer(*policy, rows, chain.exact_match, max_completion_length=MAX_COMPLETION, **settings)

    torch.manual_seed(3)
    before = torch.get_rng_state()
    sampled = answers(samples=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert sampled == answers(samples=2) != answers(samples=2, seed=1)
    assert [row["problem"] for row in sampled] == [i for i in range(20) for _ in range(2)]
    for row in sampled:
        ended = row["length"] < MAX_COMPLETION
        assert row["length"] == len(row["completion"].split()) + ended, "the end token counts"
        assert [row["reward"]] == chain.exact_match([], [row["completion"]], [problems[row["problem"]]["answers"]])
    assert len({row["completion"] for row in sampled}) > 30
    problems = problems[:1]  # in several batches, each of draws of its own
    texts = [row["completion"] for row in answers(samples=500)]
    assert not any(texts[:20] == texts[start : start + 20] for start in range(20, 480))
