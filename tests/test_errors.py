"""Every input out of contract is refused with the argument's name, what was met and what was expected."""

import math
import re

import pytest
import torch

from ktae import KTAEConfig, key_token_values, ktae_advantages
from ktae.rollout import dr_grpo, grpo, rloo

pytestmark = pytest.mark.usefixtures("both_paths")

NAN, INF = math.nan, math.inf
FLOAT32 = torch.float32


def inputs():
    return {
        "token_ids": torch.tensor([[3, 1, 2], [3, 5, 6], [3, 1, 2], [4, 1, 2]]),
        "mask": torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 1]]),
        "rewards": torch.tensor([1.0, 0.0, 0.0, 1.0]),
        "group_ids": torch.tensor([0, 0, 1, 1]),
    }


def with_entry(name, index, value, dtype=None):
    tensor = inputs()[name].clone()
    tensor = tensor if dtype is None else tensor.to(dtype)
    tensor[index] = value
    return tensor


def check(error, name, met, expected):
    """All three patterns in one message, in any order and case."""
    parts = "".join(f"(?=.*(?:{part}))" for part in (rf"\b{name}\b", met, expected))
    return pytest.raises(error, match=f"(?is)^{parts}")


def shape(*sizes):
    return re.escape(str(sizes))


BATCH = {  # argument, value, error, met, expected
    "list of ids": ("token_ids", [[1, 2, 3]] * 4, TypeError, "list", "tensor"),
    "float ids": ("token_ids", torch.ones(4, 3), TypeError, "float32", "int64|integer"),
    "bool ids": ("token_ids", torch.ones(4, 3).bool(), TypeError, "bool", "int64|integer"),
    "ids of rank 1": ("token_ids", torch.ones(4).long(), ValueError, shape(4), r"\(N, T\)"),
    "no positions": ("token_ids", torch.ones(4, 0).long(), ValueError, shape(4, 0), r"\(N, T\)"),
    "negative id": ("token_ids", with_entry("token_ids", (1, 2), -100), ValueError, "-100", ">= 0|non-neg"),
    "int8": ("token_ids", with_entry("token_ids", (0, 0), -1, torch.int8), ValueError, "-1", ">= 0|non-neg"),
    "mask is None": ("mask", None, TypeError, "NoneType", "tensor"),
    "complex mask": ("mask", torch.ones(4, 3) * 1j, TypeError, "complex64", "bool"),
    "narrow mask": ("mask", torch.ones(4, 2), ValueError, shape(4, 2), shape(4, 3)),
    "2 in the mask": ("mask", with_entry("mask", (2, 1), 2), ValueError, r"\b2\b", "0 (and|or) 1"),
    "0.5 in the mask": ("mask", with_entry("mask", 0, 0.5, FLOAT32), ValueError, "0.5", "0 (and|or) 1"),
    "list of rewards": ("rewards", [1.0, 0.0, 0.0, 1.0], TypeError, "list", "tensor"),
    "complex rewards": ("rewards", torch.ones(4) * 1j, TypeError, "complex64", "float"),
    "rewards of rank 2": ("rewards", torch.ones(4, 1), ValueError, shape(4, 1), r"\(N,\)"),
    "infinite reward": ("rewards", with_entry("rewards", 2, INF), ValueError, r"\binf", "finite"),
    "huge reward": ("rewards", torch.full((4,), 1e300, dtype=torch.float64), ValueError, r"1e\+300", "float32"),
    "3 rewards": ("rewards", torch.ones(3), ValueError, "3", "4"),
    "list of groups": ("group_ids", [0, 0, 1, 1], TypeError, "list", "tensor"),
    "float groups": ("group_ids", torch.zeros(4), TypeError, "float32", "int64|integer"),
    "bool groups": ("group_ids", torch.zeros(4).bool(), TypeError, "bool", "int64|integer"),
    "5 groups": ("group_ids", torch.zeros(5).long(), ValueError, shape(5), "4"),
    "list of states": ("states", [[0] * 3] * 4, TypeError, "list", "tensor"),
    "float states": ("states", torch.zeros(4, 3), TypeError, "float32", "int64"),
    "narrow states": ("states", torch.zeros(4, 2).long(), ValueError, shape(4, 2), shape(4, 3)),
    "no config": ("config", None, TypeError, "NoneType", "KTAEConfig"),
    "dict as config": ("config", {"scale": 2.0}, TypeError, "dict", "KTAEConfig"),
}  # fmt: skip


@pytest.mark.parametrize("function", [ktae_advantages, key_token_values], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", BATCH.values(), ids=BATCH)
def test_batch(function, case):
    name, value, error, met, expected = case
    with check(error, name, met, expected):
        function(**inputs() | {name: value})


def test_empty_batch():
    empty = {name: tensor[:0] for name, tensor in inputs().items()}
    for function in (ktae_advantages, key_token_values):
        with pytest.raises(ValueError, match=r"(token_ids|rewards).*\(0(, 3|,)\)"):
            function(**empty)
    for estimator in (grpo, dr_grpo, rloo):
        with check(ValueError, "rewards", shape(0), r"\(N,\)"):
            estimator(empty["rewards"], empty["group_ids"])


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "case", [case for case in BATCH.values() if case[0] in ("rewards", "group_ids") and case[3] != "3"]
)
def test_rollout_estimators(estimator, case):
    name, value, error, met, expected = case
    rewards_and_groups = {key: inputs()[key] for key in ("rewards", "group_ids")}
    with check(error, name, met, expected):
        estimator(*(rewards_and_groups | {name: value}).values())


OWN = {  # value, error, met, expected
    "list": ([1.0] * 4, TypeError, "list", "tensor"),
    "bool": (torch.ones(4).bool(), TypeError, "bool", "float"),
    "huge": (torch.full((4,), 1e300, dtype=torch.float64), ValueError, r"1e\+300", "float32"),
    "a token's": (torch.ones(4, 3), ValueError, shape(4, 3), r"\(N,\)|\(4,\)"),
    "one": (torch.ones(1), ValueError, shape(1), "4"),
    "nan": (torch.tensor([0.0, NAN, 0.0, 0.0]), ValueError, "nan", "finite"),
}


@pytest.mark.parametrize("case", OWN.values(), ids=OWN)
def test_rollout_advantages(case):
    value, error, met, expected = case
    with check(error, "rollout_advantages", met, expected):
        ktae_advantages(**inputs(), rollout_advantages=value)


WEIGHTS = ["fisher_weight", "information_gain_weight", "term_frequency_weight"]
CONFIG = [  # field, value, met, expected
    *((name, value, str(value), ">= 0|non-neg") for name in WEIGHTS for value in (-1.0, -1e-9)),
    *((name, value, str(value), "finite") for name in [*WEIGHTS, "correct_above", "scale"]
      for value in (NAN, INF, -INF)),
    *(("scale", value, str(value), "> 0") for value in (0, -1.0)),
    *(("context", value, str(value), r"0\.\.64") for value in (-1, 65, 1.5, True)),
    *(("ngram", value, str(value), r"1\.\.64") for value in (0, 65, 2.0)),
    ("exclude_token_ids", 7, "7", "integers"),
    ("exclude_token_ids", ("7",), "7", "integers"),
    ("fisher", "approximate", "approximate", "exact.*released"),
    ("fisher", "Exact", "Exact", "exact.*released"),
    ("fisher", None, "None", "exact.*released"),
    ("exclude_token_ids", (3, -1), "-1", r">= 0|non-neg|\[0"),
    ("exclude_token_ids", (2**63,), str(2**63), r"int64|2\*\*63"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "met", "expected"), CONFIG)
def test_config(name, value, met, expected):
    with check(ValueError, name, re.escape(met), expected):
        KTAEConfig(**{name: value})


def test_config_needs_one_association_score():
    with check(ValueError, "fisher_weight", "information_gain_weight", "positive|> 0"):
        KTAEConfig(fisher_weight=0.0, information_gain_weight=0.0)
    assert KTAEConfig(fisher_weight=0.0).information_gain_weight == 1


@pytest.mark.parametrize("name", ["fisher_weight", "information_gain_weight", "term_frequency_weight", "scale"])
def test_config_that_would_overflow(name):
    with check(ValueError, name, r"1e\+38", r"1e\+30"):
        KTAEConfig(**{name: 1e38})
    assert key_token_values(**inputs(), config=KTAEConfig(**{name: 1e30})).isfinite().all()


@pytest.mark.parametrize("ngram", [2, 3])
def test_an_ngram_within_the_context_would_change_nothing(ngram):
    with check(ValueError, "ngram", rf"\b{ngram}\b", "more than context"):
        KTAEConfig(context=2, ngram=ngram)
    assert KTAEConfig(context=2, ngram=4).ngram == 4


def test_the_inputs_of_this_file_are_valid():
    """Otherwise the tests above could pass for the wrong reason."""
    assert key_token_values(**inputs()).any()
    negative_but_masked = inputs() | {"token_ids": with_entry("token_ids", (0, 2), -100)}
    nan_for_unscored = inputs() | {"rewards": with_entry("rewards", 2, NAN)}
    for valid in (inputs(), negative_but_masked, nan_for_unscored):
        assert ktae_advantages(**valid, rollout_advantages=torch.ones(4)).isfinite().all()
