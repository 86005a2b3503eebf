"""`ktae data prepare`: the options, the rows written, and the real collections."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from saved import save
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ktae.cli import main
from ktae.data.sources import SOURCES, SYSTEM
from ktae.files import json_lines

ROWS = [{"question": f"What is {n} plus {n}?", "answer": f"Twice {n}.\n#### {2 * n:,}"} for n in range(600, 620)]
TEMPLATE = (
    "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}now answer{% endif %}"
)


@pytest.fixture
def source(monkeypatch, tmp_path):
    """Makes a known source read a file in place of the hub; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)

    def from_file(name, path):
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], path=str(path)))

    return from_file


@pytest.fixture
def gsm8k(source, tmp_path):
    source("gsm8k", save(tmp_path / "rows.jsonl", ROWS))


@pytest.fixture
def prepared(capsys):
    """Runs the command; what it printed, and the rows of out.jsonl."""

    def prepare(*arguments, out="out.jsonl"):
        assert main(["data", "prepare", *map(str, arguments), "--out", str(out)]) == 0
        return capsys.readouterr().out, json_lines.read(Path(out))

    return prepare


def save_tokenizer(folder, template):
    """One token a word."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<unk>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_rows_and_what_became_of_them(gsm8k, tmp_path, prepared):
    suite, out = tmp_path / "suite", tmp_path / "new" / "out.jsonl"
    suite.mkdir()
    save(suite / "bench.jsonl", [{"problem": "what is 601 plus 601"}])
    printed, rows = prepared("gsm8k", "--benchmarks", suite, out=out)
    expected = ["     20 rows read", "     -1 in bench", "     19 rows written", str(out)]
    assert printed.splitlines() == expected
    row = next(row for row in rows if "What is 600 plus 600?" in row["prompt"][1]["content"])
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is 600 plus 600?"}]
    digest = hashlib.sha256(b"What is 600 plus 600?").hexdigest()
    expected = {"prompt": prompt, "answers": ["1200"], "id": f"gsm8k-{digest[:16]}", "source": "gsm8k", "level": None}
    assert [*row.items()] == [*expected.items()]
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


def test_other_columns(source, prepared, tmp_path):
    path = save(tmp_path / "mine.jsonl", [{"text": "P?", "gold": 5.0, "level": "Level 2", "id": "k1"}])
    _, rows = prepared(path, "--problem-column", "text", "--answer-column", "gold", "--system", "")
    prompt = [{"role": "user", "content": "P?"}]
    assert rows == [{"prompt": prompt, "answers": ["5"], "id": "k1", "source": "mine.jsonl", "level": 2}]


def test_prompt_length_counts_the_whole_template(source, prepared, tmp_path):
    words = {length: " ".join(f"w{length}" for _ in range(length)) for length in (3, 4, 5)}
    path = save(tmp_path / "rows.jsonl", [{"problem": text, "answer": "1"} for text in words.values()])
    tokenizer = save_tokenizer(tmp_path / "tokenizer", TEMPLATE)
    # Of the eight tokens two are the system message and two what the template asks for the answer with.
    printed, rows = prepared(path, "--max-prompt-tokens", 8, "--tokenizer", tokenizer, "--system", "two words")
    assert "     -1 prompt too long" in printed
    assert {row["prompt"][-1]["content"] for row in rows} == {words[3], words[4]}


LONG = ["gsm8k", "--max-prompt-tokens", "9", "--tokenizer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gsm8k", "--out", "out.csv"], "--out must end in .jsonl, got out.csv"),
        (["gsm8k", "--out", "rows.jsonl"], "rows.jsonl exists and is not overwritten"),
        (["gsm8k", "--problem-column", "x"], "--problem-column is for other sources; those of gsm8k are known"),
        (["rows.jsonl", "--split", "test"], "--split is for the hub, and rows.jsonl is a file, got 'test'"),
        (["gsm8k", "--max-prompt-tokens", "0", "--tokenizer", "x"], "--max-prompt-tokens must be at least 1, got 0"),
        (["gsm8k", "--max-prompt-tokens", "9"], "go together, got 9 and None"),
        (["gsm8k", "--tokenizer", "x"], "go together, got None and x"),
        ([*LONG, "none"], "has no chat template, which --max-prompt-tokens needs"),
        ([*LONG, "refuses"], "refuses the prompt (no system role); if it takes no system message, give --system ''"),
        ([*LONG, "./absent"], "./absent does not exist"),
        (["gsm8k", "--levels", "3"], "none of the 20 problems is left: 20 level outside or unknown"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(gsm8k, tmp_path, arguments, message, capsys):
    for name, template in (("none", None), ("refuses", "{{ raise_exception('no system role') }}")):
        if name in arguments:
            save_tokenizer(tmp_path / name, template)
    before = {path.name: path.stat().st_mtime for path in tmp_path.iterdir()}
    assert main(["data", "prepare", "--out", "out.jsonl", *arguments]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert message in line
    assert {path.name: path.stat().st_mtime for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_math(shared, source, prepared):
    problems, suite = shared / "data/problems", shared / "data/suite"
    source("math", problems / "math_train_7474.json.gz")
    printed, rows = prepared("math", "--benchmarks", suite, "--levels", 3, 4, 5)
    assert printed.startswith("   7474 rows read\n")
    assert "\n     -4 no answer\n" in printed
    assert {row["level"] for row in rows} == {3, 4, 5}
    assert "\n    -81 in math500\n" in printed
    source("math", problems / "math_test_5000.jsonl.gz")
    _, rows = prepared("math", "--benchmarks", suite, out="test.jsonl")
    known = {row["problem"].strip() for row in json_lines.read(suite / "math500.jsonl")}
    assert len(known) == 500
    assert not known & {row["prompt"][1]["content"] for row in rows}
