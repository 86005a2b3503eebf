"""Recipes: what is written, overridden and refused."""

import re
from dataclasses import replace

import pytest
from ktae.train.model_card import _LINKS

from ktae import KTAEConfig
from ktae.train.recipe import ALGORITHMS, load_recipe

MINIMAL = """
name: small
algorithms: [grpo]
model: {path: some/model}
data: {source: problems.jsonl}
rewards: [exact_match]
batch: {prompts: 4, rollouts: 8, mini_batch: 2, per_device: 8}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults(write):
    recipe = load_recipe(write(MINIMAL))
    assert recipe.ktae == KTAEConfig()
    assert recipe.data.prompt is None
    assert recipe.trl == {}


def test_shipped_recipe_by_name():
    recipe = load_recipe("quickstart")
    assert recipe.algorithms == ["grpo", "grpo_ktae", "grpo_ktae_context"]
    assert recipe.data.test_rows == 1000


def test_overrides(write):
    overrides = ["--trl.learning_rate", "1e-5", "--seed=3", "--algorithms", "[grpo_ktae]", "--ktae.scale=2"]
    recipe = load_recipe(write(MINIMAL), [*overrides, "--data.system", "Answer briefly."])
    assert recipe.trl == {"learning_rate": 1e-5}
    assert recipe.seed == 3
    assert recipe.algorithms == ["grpo_ktae"]
    assert recipe.ktae == KTAEConfig(scale=2.0)
    assert recipe.data.system == "Answer briefly."


@pytest.mark.parametrize("number", ["1e-6", "1E-6", "1.0e-6", ".000001", "1e-06"])
def test_numbers_in_scientific_notation_are_numbers(write, number):
    recipe = load_recipe(write(f"{MINIMAL}trl: {{learning_rate: {number}}}"))
    assert recipe.trl["learning_rate"] == pytest.approx(1e-6)


def test_the_written_config_is_a_recipe_again(write):
    import yaml

    recipe = load_recipe(write(MINIMAL), ["--ktae.exclude_token_ids", "[0, 7]", "--trl.beta", "0.001"])
    assert load_recipe(write(yaml.safe_dump(recipe.as_dict()))) == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--trl.learning_rte", "1"], "unknown key 'trl.learning_rte'; did you mean 'trl.learning_rate'?"),
        (["--ktae.fisher_wieght", "1"], "unknown key 'ktae.fisher_wieght'; did you mean 'ktae.fisher_weight'?"),
        (["--modle.path", "x"], "unknown key 'modle'; did you mean 'model'?"),
        (["--algorithms", "[grpo, grpo_kate]"], "unknown algorithm 'grpo_kate'; did you mean 'grpo_ktae'?"),
        (["--algorithms", "[]"], "algorithms must be a list without repetitions, got []"),
        (["--algorithms", "[grpo, grpo]"], "algorithms must be a list without repetitions, got ['grpo', 'grpo']"),
        (["--seed", "1.5"], "seed must be int, got 1.5"),
        (["--seed", "true"], "seed must be int, got True"),
        (["--data.chat", "1"], "data.chat must be bool, got 1"),
        (["--ktae.scale", "big"], "ktae.scale must be float, got 'big'"),
        (["--ktae.fisher", "float32"], "ktae.fisher must be Literal['exact', 'released'], got 'float32'"),
        (["--ktae.fisher_weight", "-1"], "fisher_weight must be >= 0, got -1.0"),
        (["--ktae", "7"], "ktae must be KTAEConfig, got 7"),
        (["--seed.x", "1"], "unknown key 'seed.x': 'seed' is not a section"),
        (["--rewards", "[1]"], "rewards[0] must be str, got 1"),
        (["--rewards", "[]"], "rewards must name at least one reward function"),
        (["--name", "a/b"], "name must consist of letters, digits"),
        (["--trl.output_dir", "x"], "trl.output_dir is set by ktae; give --out"),
        (["--trl.seed", "1"], "trl.seed is set by ktae; set seed"),
        (["--seed"], "--seed needs a value"),
        (["seed"], "expected --key value, got 'seed'"),
    ],
)
def test_wrong_settings_are_named(write, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recipe(write(f"{MINIMAL}seed: 0\n"), overrides)


def test_missing_key(write):
    with pytest.raises(ValueError, match="missing key model"):
        load_recipe(write("name: x\nalgorithms: [grpo]\ndata: {source: x}\nrewards: [exact_match]"))


def test_not_a_mapping(write):
    with pytest.raises(ValueError, match="must hold a mapping, got list"):
        load_recipe(write("- name"))


def test_no_such_recipe():
    with pytest.raises(FileNotFoundError, match=r"no recipe 'quickstrt'.*\(quickstart\)"):
        load_recipe("quickstrt")


def test_the_settings_of_an_algorithm(write):
    recipe = load_recipe(write(MINIMAL + "ktae: {correct_above: 0.5, exclude_token_ids: [3], scale: 0.25}\n"))
    assert recipe.key_tokens("grpo_ktae") is recipe.ktae
    in_context = recipe.key_tokens("dapo_ktae_context")
    assert (in_context.correct_above, in_context.exclude_token_ids) == (0.5, (3,))
    assert in_context == replace(KTAEConfig.recommended(), correct_above=0.5, exclude_token_ids=(3,))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_model_card_can_name_every_algorithm(algorithm):
    assert set(ALGORITHMS[algorithm].label.split("+")) <= _LINKS.keys()
