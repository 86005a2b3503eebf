"""`ktae data prepare`: the options, the rows written, and the real collections."""

import argparse
import dataclasses
import hashlib
import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ktae.data import prepare
from ktae.data.sources import SOURCES, SYSTEM
from ktae.files import json_lines

ROWS = [{"question": f"What is {n} plus {n}?", "answer": f"Twice {n}.\n#### {2 * n:,}"} for n in range(600, 620)]
TEMPLATE = (
    "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}now answer{% endif %}"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def source(monkeypatch):
    """Makes a known source read a file in place of the hub."""

    def from_file(name, path):
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], path=str(path)))

    return from_file


@pytest.fixture
def gsm8k(source, tmp_path):
    source("gsm8k", write(tmp_path / "rows.jsonl", ROWS))


def save_tokenizer(folder, template):
    """One token a word."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def command(*arguments):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args(["prepare", *map(str, arguments)]))


def test_the_rows_and_what_became_of_them(gsm8k, tmp_path, capsys):
    suite = tmp_path / "suite"
    suite.mkdir()
    write(suite / "bench.jsonl", [{"problem": "what is 601 plus 601"}])
    out = tmp_path / "new" / "out.jsonl"
    command("gsm8k", "--benchmarks", suite, "--out", out)
    printed = ["     20 rows read", "     -1 in bench by its text", "     19 rows written", str(out)]
    assert capsys.readouterr().out.splitlines() == printed
    rows = json_lines.read(out)
    assert [list(row) for row in rows] == [["prompt", "answers", "id", "source", "level"]] * 19
    row = next(row for row in rows if "What is 600 plus 600?" in row["prompt"][1]["content"])
    system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": "What is 600 plus 600?"}
    assert row["prompt"] == [system, user]
    digest = hashlib.sha256(b"What is 600 plus 600?").hexdigest()
    assert (row["answers"], row["id"], row["level"]) == (["1200"], f"gsm8k-{digest[:16]}", None)
    assert row["source"] == "gsm8k"
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


def test_other_columns(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"text": "P?", "gold": 5.0, "level": "Level 2", "id": "k1"}])
    columns = ("--problem-column", "text", "--answer-column", "gold")
    command(path, "--out", tmp_path / "out.jsonl", "--system", "", *columns)
    prompt = [{"role": "user", "content": "P?"}]
    expected = {"prompt": prompt, "answers": ["5"], "id": "k1", "source": "mine.jsonl", "level": 2}
    assert json_lines.read(tmp_path / "out.jsonl") == [expected]


def test_prompt_length_counts_the_whole_template(tmp_path, capsys):
    words = {length: " ".join(f"w{length}" for _ in range(length)) for length in (3, 4, 5)}
    path = write(tmp_path / "rows.jsonl", [{"problem": text, "answer": "1"} for text in words.values()])
    tokenizer = save_tokenizer(tmp_path / "tokenizer", TEMPLATE)
    # Of the eight tokens two are the system message and two what the template asks for the answer with.
    options = ("--max-prompt-tokens", 8, "--tokenizer", tokenizer, "--system", "two words")
    command(path, "--out", tmp_path / "out.jsonl", *options)
    assert "     -1 prompt too long" in capsys.readouterr().out
    kept = {row["prompt"][-1]["content"] for row in json_lines.read(tmp_path / "out.jsonl")}
    assert kept == {words[3], words[4]}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template, which --max-prompt-tokens needs$"),
        ("{{ raise_exception('no system role') }}", r"refuses the prompt \(no system role\); .* give --system ''$"),
        ("absent", r"--tokenizer .*absent cannot be loaded: [^\n]+$"),
    ],
)
def test_tokenizers_that_do_not_do(gsm8k, tmp_path, template, message):
    folder = tmp_path / "absent"
    tokenizer = str(folder) if template == "absent" else save_tokenizer(tmp_path / "tokenizer", template)
    with pytest.raises(ValueError, match=message):
        command("gsm8k", "--out", tmp_path / "out.jsonl", "--tokenizer", tokenizer, "--max-prompt-tokens", 9)


def test_nothing_is_overwritten_or_left_behind(gsm8k, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"

    def fail(path, rows):
        path.write_text("{")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(json_lines, "write", fail)
        with pytest.raises(OSError, match="no space left"):
            command("gsm8k", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"out.jsonl exists and is not overwritten") as caught:
        command("gsm8k", "--out", out)
    assert caught.value.filename is None
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gsm8k", "--out", "out.csv"], r"--out must end in .jsonl, got out.csv"),
        (["gsm8k", "--problem-column", "x"], r"--problem-column is for other sources; those of gsm8k are known"),
        (["rows.jsonl", "--split", "test"], r"--split is for the hub, and rows.jsonl is a file, got 'test'"),
        (["gsm8k", "--max-prompt-tokens", "0", "--tokenizer", "x"], r"--max-prompt-tokens must be at least 1, got 0"),
        (["gsm8k", "--max-prompt-tokens", "9"], r"go together, and --tokenizer is missing"),
        (["gsm8k", "--tokenizer", "x"], r"go together, and --max-prompt-tokens is missing"),
        (["gsm8k", "--levels", "3"], r"none of the 20 problems is left: 20 level outside or unknown"),
        (["math", "--levels", "hard"], r"--levels must be like"),
    ],
)
def test_options_that_do_not_go(gsm8k, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        command("--out", tmp_path / "out.jsonl", *options)


@pytest.mark.slow
def test_math(shared, source, tmp_path, capsys):
    problems, suite, out = shared / "data/problems", shared / "data/suite", tmp_path / "train.jsonl"
    source("math", problems / "math_train_7474.json.gz")
    command("math", "--out", out, "--benchmarks", suite, "--levels", "3-5")
    printed = capsys.readouterr().out
    assert printed.startswith("   7474 rows read\n")
    assert "\n     -4 no answer\n" in printed
    assert {row["level"] for row in json_lines.read(out)} == {3, 4, 5}
    # By exact text MATH's training and test sets are disjoint, and the other benchmarks are not in it.
    assert "by 13 words" in printed
    assert "by its text" not in printed

    source("math", problems / "math_test_5000.jsonl.gz")
    command("math", "--out", tmp_path / "test.jsonl", "--benchmarks", suite)
    assert "\n   -500 in math500 by its text\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [("gsm8k", "gsm8k_train.jsonl.gz"), ("svamp", "svamp_test.jsonl")])
def test_word_problems_share_nothing_with_the_suite(shared, source, tmp_path, capsys, name, file):
    source(name, shared / "data/problems" / file)
    command(name, "--out", tmp_path / "out.jsonl", "--benchmarks", shared / "data/suite")
    assert len(capsys.readouterr().out.splitlines()) == 3, "every row read is written"
    answers = [row["answers"] for row in json_lines.read(tmp_path / "out.jsonl")]
    assert all(len(one) == 1 and "," not in one[0] and ".0" not in one[0] for one in answers)
