"""Recipes: what is written, overridden and refused."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

from ktae import KTAEConfig
from ktae.estimators import interface
from ktae.train.recipe import load_recipe, parse_algorithm
from ktae.train.settings import grpo_config

DOCS = Path(__file__).parents[2] / "docs"
MINIMAL = """
name: small
algorithms: [grpo]
model: {path: some/model}
data: {source: problems.jsonl}
rewards: [exact_match]
batch: {prompts: 4, rollouts: 8, mini_batch: 2, per_device: 8}
"""


@pytest.fixture
def load(tmp_path):
    def load(*overrides, text=MINIMAL):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return load_recipe(str(path), list(overrides))

    return load


def test_defaults_and_overrides(load):
    assert (load().ktae, load().correctness_reward, load().trl) == (KTAEConfig(), None, {})
    overrides = ["--trl.learning_rate", "1e-5", "--seed=3", "--algorithms", "[grpo+ktae]", "--ktae.scale=2"]
    recipe = load(*overrides, "--correctness_reward", "exact_match", "--data.source", "'a: {b}'")
    assert (recipe.trl, recipe.ktae) == ({"learning_rate": 1e-5}, KTAEConfig(scale=2.0))
    assert (recipe.seed, recipe.algorithms, recipe.data.source) == (3, ["grpo+ktae"], "a: {b}")
    assert load("--correctness_reward", "null").correctness_reward is None


@pytest.mark.parametrize("number", ["1e-6", "1E-6", "1.0e-6", ".000001", "1e-06"])
def test_numbers_in_scientific_notation_are_numbers_and_no_is_a_text(load, number):
    recipe = load("--trl.learning_rate", number, "--trl.save_strategy", "no", "--evaluation.greedy", "false")
    assert recipe.trl == {"learning_rate": pytest.approx(1e-6), "save_strategy": "no"}
    assert not recipe.evaluation.greedy
    assert load(text=yaml.safe_dump(recipe.as_dict())) == recipe


def test_a_key_of_a_section_that_is_null(load):
    assert load("--lora.r", "4", text=f"{MINIMAL}lora: null\n").lora == {"r": 4}


# Algorithms


@pytest.mark.parametrize(
    ("name", "canonical", "rollout", "estimator", "label"),
    [
        ("grpo", "grpo", "grpo", None, "GRPO"),
        ("dapo+ktae", "dapo+ktae", "dapo", "ktae", "DAPO+KTAE"),
        ("grpo+ktae_context", "grpo+ktae_context", "grpo", "ktae_context", "GRPO+KTAE in context"),
        ("grpo+a_mod.b:own", "grpo+a_mod.b.own", "grpo", "a_mod.b.own", "GRPO+a_mod.b.own"),
        ("dapo+listed", "dapo+listed", "dapo", "listed", "DAPO+listed"),
    ],
)
def test_algorithms_by_name(monkeypatch, name, canonical, rollout, estimator, label):
    monkeypatch.setitem(interface.ESTIMATORS, "listed", "a_mod:function")
    parse_algorithm.cache_clear()
    for spelling in (name, canonical):  # what a run's config.yaml holds is read again
        algorithm = parse_algorithm(spelling)
        assert (algorithm.name, algorithm.rollout, algorithm.estimator) == (canonical, rollout, estimator)
        assert algorithm.label == label
    assert re.fullmatch(r"[\w.+-]+", algorithm.name), "a folder's name"


def test_an_estimator_of_ones_own(load, tmp_path, monkeypatch):
    (tmp_path / "own_credit.py").write_text("def nothing(rollouts):\n    return rollouts.token_ids * 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (name,) = load("--algorithms", "[grpo+own_credit:nothing]").algorithms
    assert parse_algorithm(name).load_estimator().__name__ == "nothing"
    with pytest.raises(ValueError, match="own_credit has no function 'nothng'"):
        parse_algorithm("grpo+own_credit:nothng").load_estimator()


def test_the_settings_of_an_algorithm(load):
    recipe = load(
        *("--algorithms", "[grpo+ktae, dapo+ktae_context]", "--correct_above", "0.5"),
        *("--ktae.scale", "0.25", "--ktae_context.exclude_token_ids", "[3]"),
    )
    assert recipe.key_tokens("grpo+ktae") == KTAEConfig(scale=0.25, correct_above=0.5)
    in_context = recipe.key_tokens("dapo+ktae_context")
    assert (in_context.context, in_context.correct_above, in_context.exclude_token_ids) == (2, 0.5, (3,))
    assert in_context.scale == KTAEConfig.recommended().scale


@pytest.mark.parametrize(
    ("name", "sections"),
    [("grpo", set()), ("grpo+ktae", {"ktae"}), ("dapo+ktae_context", {"ktae_context", "dynamic_sampling", "overlong"})],
)
def test_the_written_config_is_the_recipe_again_and_says_only_what_ran(load, name, sections):
    recipe = load("--algorithms", f"[{name}]", "--trl.beta", "0.001", "--correct_above", "0.5")
    written = recipe.as_dict()
    assert load(text=yaml.safe_dump(written)) == recipe
    assert {"ktae", "ktae_context", "dynamic_sampling", "overlong"} & written.keys() == sections


def test_a_section_of_the_file_may_lie_idle_when_other_algorithms_are_asked_for(load):
    text = MINIMAL.replace("[grpo]", "[grpo+ktae]") + "ktae: {scale: 2}\n"
    assert "ktae" not in load("--algorithms", "[grpo]", text=text).as_dict()
    with pytest.raises(ValueError, match="ktae has no effect"):
        load(text=text.replace("[grpo+ktae]", "[grpo]"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--trl.sed", "1"], "unknown key 'trl.sed'; did you mean 'trl.fsdp'?"),  # trl.seed is ktae's to set
        (["--trl.learning_rte", "1"], "unknown key 'trl.learning_rte'; did you mean 'trl.learning_rate'?"),
        (["--lora.rank", "4"], "unknown key 'lora.rank'; did you mean 'lora.r'?"),
        (["--lora.r", "four"], "lora.r must be a valid integer, got 'four'"),
        (["--model", "some/model"], "model is a section, got 'some/model'; set its keys: model.dtype, model.path"),
        (["--algorithms", "[grpo_ktae]"], "unknown algorithm 'grpo_ktae'; did you mean 'grpo+ktae'?"),
        (["--algorithms", "[grpo+a/b.c]"], "unknown algorithm 'grpo+a/b.c'"),
        (["--algorithms", "[]"], "algorithms must be a list without repetitions, got []"),
        (["--algorithms", "[grpo, grpo]"], "algorithms must be a list without repetitions, got ['grpo', "),
        (["--algorithms", "grpo"], "algorithms must be a list, got 'grpo'"),
        (["--seed", "true"], "seed must be a valid integer, got True"),
        (["--overlong", "half"], "overlong must be a valid integer or 'quarter', got 'half'"),
        (["--algorithms", "[dapo]", "--dynamic_sampling", "0"], "dynamic_sampling must be at least 1, or null, got 0"),
        (["--rewards", "[exact_match, math_answer]"], "correctness_reward must name one of"),
        (["--batch.rollouts", "1"], "batch.rollouts must be at least 2, got 1"),
        (["--batch.mini_batch", "3"], "batch.prompts must be a multiple of mini_batch, got 4 and 3"),
        (["--ktae.fisher", "float32"], "ktae.fisher must be 'exact' or 'released', got 'float32'"),
        (["--ktae.fisher_weight", "-1"], "ktae.fisher_weight must be >= 0, got -1.0"),
        (["--ktae.exclude_token_ids", "5"], "ktae.exclude_token_ids must be a list, got 5"),
        (["--ktae.correct_above", "1"], "ktae.correct_above is set by ktae; set correct_above"),
        (["--seed.x", "1"], "unknown key 'seed.x': 'seed' is not a section"),
        (["--rewards", "[1]"], "rewards[0] must be a valid string, got 1"),
        (["--data.test_row", "1"], "unknown key 'data.test_row'; did you mean 'data.test_rows'?"),
        (["--rewards", "[]"], "rewards must name at least one reward function"),
        (["--name", "a/b"], "name must consist of letters, digits"),
        (["--trl.report_to", "{a: 1}"], "trl.report_to must be a valid string or a list, got {'a': 1}"),
        (["--trl.push_to_hub", "true"], "trl.push_to_hub is set by ktae; upload the finished folder"),
        (["--trl.seed", "1"], "trl.seed is set by ktae; set seed"),
        (["--algorithms", "[grpo+ktae_context]", "--ktae.scale", "3"], "ktae has no effect: it is for"),
        (["--ktae_context.scale", "3"], "ktae_context has no effect: it is for algorithms such as grpo+ktae_context"),
        (["--overlong", "null"], "overlong has no effect: it is for algorithms such as dapo, and"),
        (["--dynamic_sampling", "5"], "dynamic_sampling has no effect"),
        (["--seed"], "--seed needs a value"),
        (["seed"], "expected --key value, got 'seed'"),
        (["--seed", "[1"], "not valid YAML"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(load, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(*overrides, text=f"{MINIMAL}seed: 0\n")


def test_wrong_files(load):
    with pytest.raises(ValueError, match="missing key model"):
        load(text=MINIMAL.replace("model: {path: some/model}", ""))
    with pytest.raises(ValueError, match="must hold a mapping, got list"):
        load(text="- name")
    with pytest.raises(FileNotFoundError, match=r"no recipe 'quickstrt'.*\(quickstart\)"):
        load_recipe("quickstrt")


def test_the_shipped_recipe():
    recipe = load_recipe("quickstart")
    assert recipe.algorithms == ["grpo", "grpo+ktae_context"]
    assert load_recipe("quickstart", ["--algorithms", "[dapo]"]).overlong == "quarter"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the libraries' deprecations among themselves
def test_the_quickstart_stays_on_the_cpu_where_there_is_an_accelerator(tmp_path, monkeypatch):
    """It says CPU; on a Mac it would be trained on MPS, in bfloat16."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    config = grpo_config(load_recipe("quickstart"), "grpo", tmp_path)
    assert config.use_cpu
    assert config.device.type == "cpu"
    assert not config.bf16


def test_the_page_of_keys_is_current():
    written = (DOCS / "recipe-keys.md").read_text()
    page = runpy.run_path(str(DOCS / "recipe_keys.py"))["page"]()
    assert written == page, "python docs/recipe_keys.py > docs/recipe-keys.md"
    for key in ("train_rows", "samples", "dtype", "overlong", "correct_above"):
        assert f"| `{key}` |" in written
