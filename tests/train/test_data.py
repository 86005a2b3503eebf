"""Reading problems: files, templates, chat, the split."""

import json

import pytest

from ktae.train.data import load_data
from ktae.train.recipe import Data


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(
        "".join(json.dumps({"Body": f"{i} apples.", "Question": "How many?", "N": i}) + "\n" for i in range(20))
    )
    return str(path)


def test_templates_and_columns(problems):
    train, test = load_data(Data(problems, prompt="{Body} {Question}", answer="{N}", test_rows=5), seed=0)
    assert (len(train), len(test)) == (15, 5)
    for row in [*train, *test]:
        assert row["prompt"] == f"{row['N']} apples. How many?"
        assert row["answers"] == [str(row["N"])]


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (r"{Body} Put it into \boxed{}.", r"7 apples. Put it into \boxed{}."),
        (r"\boxed{\frac{1}{2}} of {N}", r"\boxed{\frac{1}{2}} of 7"),
        (r"\boxed{{N}} of {N}", r"\boxed{N} of 7"),
        (r"\boxed{{{N}}}", r"\boxed{7}"),
        (r"\boxed{\text{N}}", r"\boxed{\text7}"),
    ],
)
def test_braces_that_name_no_column_are_text(problems, template, prompt):
    train, _ = load_data(Data(problems, prompt=template, answer="{N}", test_rows=1), seed=0)
    assert next(row["prompt"] for row in train if row["N"] == 7) == prompt


def test_chat(problems):
    data = Data(problems, prompt="{Body}", answer="{N}", chat=True, system="Be brief.", test_rows=1)
    train, _ = load_data(data, seed=0)
    assert train[0]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{train[0]['N']} apples."},
    ]


def test_split_is_disjoint_and_does_not_depend_on_the_seed(problems):
    data = Data(problems, prompt="{Body}", answer="{N}", test_rows=5, train_rows=8)
    train, test = load_data(data, seed=0)
    again_train, again_test = load_data(data, seed=1)
    assert len(train) == 8
    assert not set(train["N"]) & set(test["N"])
    assert test["N"] == again_test["N"]
    assert train["N"] == again_train["N"]


def test_modchain_splits():
    data = Data("modchain", train_rows=50, test_rows=10)
    train, test = load_data(data, seed=0)
    other, same = load_data(data, seed=1)
    assert (len(train), len(test)) == (50, 10)
    assert train["prompt"] != other["prompt"]
    assert test["prompt"] == same["prompt"]


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "cut.jsonl").write_text('{"prompt": "a", "answers": ["b"]}\n{"prompt": "a", \n')
    with pytest.raises(ValueError, match=r"cut\.jsonl:2: "):
        load_data(Data(str(tmp_path / "cut.jsonl"), test_rows=0), seed=0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"prompt": "{Qestion}"}, ValueError, "data.prompt names the column 'Qestion', .* did you mean 'Question'"),
        ({"answer": "{n}"}, ValueError, "data.answer names the column 'n', .* did you mean 'N'"),
        ({"prompt": None}, ValueError, "has no column 'prompt' but .*--data.prompt '{Question}'"),
        ({"answer": None}, ValueError, "has no column 'answers' but .*--data.answer '{COLUMN}'"),
        ({"test_rows": 20}, ValueError, "has 20 rows, fewer than data.test_rows 20 and data.train_rows at least 1"),
        ({"train_rows": 16}, ValueError, "has 20 rows, fewer than data.test_rows 5 and data.train_rows 16"),
        ({"source": "absent.jsonl"}, FileNotFoundError, "data.source absent.jsonl does not exist"),
        ({"source": "modchain"}, ValueError, "data.train_rows is required with source modchain"),
        ({"source": "modchain", "train_rows": 1, "test_rows": 1001}, ValueError, "data.test_rows must be at most 1000"),
    ],
)
def test_errors(problems, changes, error, message):
    settings = {"source": problems, "prompt": "{Body}", "answer": "{N}", "test_rows": 5, **changes}
    with pytest.raises(error, match=message):
        load_data(Data(**settings), seed=0)
