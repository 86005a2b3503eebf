"""`ktae data prepare`: settings, the files written, the command, and the real collections."""

import argparse
import hashlib
import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ktae.data.prepare import SYSTEM, Prepare, add_arguments, prepare, run
from ktae.files import json_lines

ROWS = [{"question": f"What is {n} plus {n}?", "answer": f"Twice {n}.\n#### {2 * n:,}"} for n in range(600, 620)]
TEMPLATE = (
    "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}now answer{% endif %}"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def gsm8k(tmp_path):
    return write(tmp_path / "rows.jsonl", ROWS)


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
    add_arguments(parser)
    run(parser.parse_args(["prepare", *map(str, arguments)]))


def test_rows(gsm8k, tmp_path):
    out = tmp_path / "new" / "out.jsonl"
    counts = prepare(Prepare("gsm8k", out, file=gsm8k))
    rows = json_lines.read(out)
    assert (counts.read, counts.written, counts.dropped, len(rows)) == (20, 20, {}, 20)
    assert [list(row) for row in rows] == [["prompt", "answers", "id", "source", "level"]] * 20
    row = next(row for row in rows if "What is 600 plus 600?" in row["prompt"][1]["content"])
    assert row["prompt"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "What is 600 plus 600?"},
    ]
    digest = hashlib.sha256(b"What is 600 plus 600?").hexdigest()
    assert (row["answers"], row["id"], row["level"]) == (["1200"], f"gsm8k-{digest[:16]}", None)
    assert row["source"] == "gsm8k"


def test_info(gsm8k, tmp_path):
    out = tmp_path / "out.jsonl"
    prepare(Prepare("gsm8k", out, file=gsm8k, limit=5, seed=2))
    info = json.loads((tmp_path / "out.jsonl.info.json").read_text())
    assert info["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert info["counts"] == {"read": 20, "dropped": {"beyond the limit": 15}, "written": 5}
    settings = {**info["settings"], "out": out, "file": gsm8k}
    assert Prepare(**settings) == Prepare("gsm8k", out, file=gsm8k, limit=5, seed=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.info.json", "rows.jsonl"]


def test_other_columns(tmp_path):
    rows = [{"text": "P?", "gold": 5.0, "rank": "Level 2", "key": "k1"}]
    source = str(write(tmp_path / "mine.jsonl", rows))
    columns = {"problem_column": "text", "answer_column": "gold", "level_column": "rank", "id_column": "key"}
    prepare(Prepare(source, tmp_path / "out.jsonl", system="", **columns))
    prompt = [{"role": "user", "content": "P?"}]
    expected = {"prompt": prompt, "answers": ["5"], "id": "k1", "source": "mine.jsonl", "level": 2}
    assert json_lines.read(tmp_path / "out.jsonl") == [expected]


def test_prompt_length_counts_the_whole_template(tmp_path):
    words = {length: " ".join(f"w{length}" for _ in range(length)) for length in (3, 4, 5)}
    source = str(write(tmp_path / "rows.jsonl", [{"problem": text, "answer": "1"} for text in words.values()]))
    settings = {"tokenizer": save_tokenizer(tmp_path / "tokenizer", TEMPLATE), "system": "two words"}
    # Of the eight tokens two are the system message and two what the template asks for the answer with.
    counts = prepare(Prepare(source, tmp_path / "out.jsonl", max_prompt_tokens=8, **settings))
    assert counts.dropped == {"prompt too long": 1}
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
    settings = Prepare("gsm8k", tmp_path / "out.jsonl", file=gsm8k, tokenizer=tokenizer, max_prompt_tokens=9)
    with pytest.raises(ValueError, match=message):
        prepare(settings)


@pytest.mark.parametrize("existing", ["out.jsonl", "out.jsonl.info.json"])
def test_nothing_is_overwritten(gsm8k, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{existing} exists and is not overwritten") as caught:
        prepare(Prepare("gsm8k", tmp_path / "out.jsonl", file=gsm8k))
    assert caught.value.filename is None
    assert (tmp_path / existing).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {existing, "rows.jsonl"}


def test_a_failure_leaves_nothing_behind(gsm8k, tmp_path, monkeypatch):
    def fail(path, rows):
        path.write_text("{")
        raise OSError("no space left")

    monkeypatch.setattr(json_lines, "write", fail)
    with pytest.raises(OSError, match="no space left"):
        prepare(Prepare("gsm8k", tmp_path / "out.jsonl", file=gsm8k))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "out.csv"}, "--out must end in .jsonl, got out.csv"),
        ({"problem_column": "x"}, "--problem-column is for other sources; those of gsm8k are known"),
        ({"source": "mine"}, r"--file is for math, gsm8k, svamp; give .*rows.jsonl as SOURCE instead of mine"),
        ({"file": "rows.csv"}, r"--file must end in .jsonl, .*, .parquet, got rows.csv"),
        ({"split": "test"}, r"--split is for the hub, and .*rows.jsonl is a file, got 'test'"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"max_prompt_tokens": 0, "tokenizer": "x"}, "--max-prompt-tokens must be at least 1, got 0"),
        ({"max_prompt_tokens": 9}, "go together, and --tokenizer is missing"),
        ({"tokenizer": "x"}, "go together, and --max-prompt-tokens is missing"),
        ({"levels": (3,)}, r"--levels needs a column of levels, which gsm8k has not$"),
    ],
)
def test_settings_that_do_not_go(gsm8k, tmp_path, changes, message):
    paths = {key: tmp_path / changes[key] for key in ("out", "file") if key in changes}
    settings = {"source": "gsm8k", "out": tmp_path / "out.jsonl", "file": gsm8k, **changes, **paths}
    with pytest.raises(ValueError, match=message.replace("got out", "got .*out").replace("got rows", "got .*rows")):
        prepare(Prepare(**settings))


def test_command(gsm8k, tmp_path, capsys):
    suite = tmp_path / "suite"
    suite.mkdir()
    write(suite / "bench.jsonl", [{"problem": "what is 601 plus 601"}])
    out = tmp_path / "out.jsonl"
    command("gsm8k", "--file", gsm8k, "--benchmarks", suite, "--limit", 4, "--system", "", "--out", out)
    assert capsys.readouterr().out.splitlines() == [
        "     20 rows read",
        "     -1 in bench by its text",
        "    -15 beyond the limit",
        "      4 rows written",
        str(out),
    ]
    command("gsm8k", "--file", gsm8k, "--out", tmp_path / "all.jsonl")
    assert capsys.readouterr().out.splitlines()[:2] == ["     20 rows read", "     20 rows written"]
    with pytest.raises(ValueError, match="--levels must be like"):
        command("math", "--levels", "hard", "--out", tmp_path / "hard.jsonl")


@pytest.mark.slow
def test_math(shared, tmp_path):
    problems, suite = shared / "data/problems", shared / "data/suite"
    out, file = tmp_path / "train.jsonl", problems / "math_train_7474.json.gz"
    counts = prepare(Prepare("math", out, file=file, benchmarks=suite, levels=(3, 4, 5)))
    rows = json_lines.read(out)
    assert len(rows) == counts.written == counts.read - sum(counts.dropped.values())
    assert (counts.read, counts.dropped["no answer"]) == (7474, 4)
    assert {row["level"] for row in rows} == {3, 4, 5}
    # By exact text MATH's training and test sets are disjoint, and the other benchmarks are not in it.
    found = [reason for reason in counts.dropped if reason.startswith("in ")]
    assert found
    assert all(reason.endswith("13 words") for reason in found)

    file = problems / "math_test_5000.jsonl.gz"
    counts = prepare(Prepare("math", tmp_path / "test.jsonl", file=file, benchmarks=suite))
    assert counts.dropped["in math500 by its text"] == 500


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [("gsm8k", "gsm8k_train.jsonl.gz"), ("svamp", "svamp_test.jsonl")])
def test_word_problems_share_nothing_with_the_suite(shared, tmp_path, name, file):
    data, out = shared / "data", tmp_path / "out.jsonl"
    settings = Prepare(name, out, file=data / "problems" / file, benchmarks=data / "suite")
    counts = prepare(settings)
    assert (counts.dropped, counts.written) == ({}, counts.read)
    answers = [row["answers"] for row in json_lines.read(out)]
    assert all(len(one) == 1 and "," not in one[0] and ".0" not in one[0] for one in answers)
