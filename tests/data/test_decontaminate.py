"""Overlap with benchmarks: normalised text, runs of 13 words, reading the benchmarks."""

import json

import pytest

from ktae.data.decontaminate import EXACT, RUN, normalise, read_benchmarks

WORDS = [f"w{number}" for number in range(20)]


def write(folder, **problems):
    folder.mkdir(exist_ok=True)
    for name, texts in problems.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"id": 0, "problem": text}) for text in texts))
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  Two\nlines,  three_words! ", "two lines three words"),
        (r"$\dfrac{1}{2}+x^2$", "dfrac 1 2 x 2"),
        ("Größe Δ 12", "größe δ 12"),
        (r"\[ + \]", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(("shared", "expected"), [(12, {}), (13, {"bench": RUN}), (14, {"bench": RUN})])
@pytest.mark.parametrize("at", [0, 3])
def test_a_run_of_13_words(tmp_path, shared, expected, at):
    benchmarks = read_benchmarks(write(tmp_path, bench=[" ".join(WORDS)]))
    assert benchmarks.overlaps(" ".join(["before", *WORDS[at : at + shared], "after"])) == expected
    assert benchmarks.overlaps(" ".join(WORDS[at : at + shared])) == expected


def test_the_run_has_to_be_unbroken_and_within_one_problem(tmp_path):
    benchmarks = read_benchmarks(write(tmp_path, bench=[" ".join(WORDS[:10]), " ".join(WORDS[10:])]))
    assert benchmarks.overlaps(" ".join(WORDS)) == {}
    assert benchmarks.overlaps(" ".join([*WORDS[:9], "between", *WORDS[9:]])) == {}


def test_exact_text_of_any_length_wins_over_a_run(tmp_path):
    long = " ".join(WORDS)
    benchmarks = read_benchmarks(write(tmp_path, a=["What is $1+1$?", long], b=[f"{long} more"]))
    assert benchmarks.overlaps(normalise("what is 1 + 1")) == {"a": EXACT}
    assert benchmarks.overlaps(normalise("what is 1 + 2")) == {}
    assert benchmarks.overlaps(long) == {"a": EXACT, "b": RUN}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"the benchmark .*a.jsonl is empty"),
        ('{"problem": "x"}\n{"problem": ', r"a.jsonl:2: a benchmark's row must .*, not valid JSON"),
        (
            '{"question": "x"}',
            r"a.jsonl:1: a benchmark's row must be an object with a text 'problem', got \['question'\]",
        ),
        ('{"problem": "?"}', r"a.jsonl:1: .* with a text 'problem', got \['problem'\]"),
        ("[1]", r"a.jsonl:1: .* with a text 'problem', a row must be a JSON object"),
    ],
)
def test_errors(tmp_path, lines, message):
    (tmp_path / "a.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=message):
        read_benchmarks(tmp_path)


def test_no_benchmarks(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \*\.jsonl file"):
        read_benchmarks(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of benchmarks .*absent does not exist"):
        read_benchmarks(tmp_path / "absent")


def test_the_suite(shared):
    benchmarks = read_benchmarks(shared / "data/suite")
    sizes = {name: len(texts) for name, texts in benchmarks.texts.items()}
    assert sizes.keys() == {"aime24", "amc23", "math500", "minerva", "olympiadbench"}
    assert (sizes["aime24"], sizes["math500"]) == (30, 500)
    # The same sum in MATH's training set and in OlympiadBench, set differently.
    text = r"Compute \[\sin^2 4^\circ + \sin^2 8^\circ + \sin^2 12^\circ + \dots + \sin^2 176^\circ.\]"
    assert benchmarks.overlaps(normalise(text)) == {"olympiadbench": RUN}
