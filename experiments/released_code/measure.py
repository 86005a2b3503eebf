"""What the defects of the authors' released code amount to, in figures.

    python experiments/released_code/measure.py

Writes results.json beside this file. Reads ../shared/data/golden when it is there, and says so when it is not.
The figures are quoted in docs/differences-from-the-released-code.md.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch

from ktae import KTAEConfig, key_token_values, ktae_advantages
from ktae.scores import fisher_p_values, fisher_scores, released_fisher_scores

HERE = Path(__file__).parent
GOLDEN = HERE.parents[1] / "tests" / "golden"
G = 16


def fisher_tables() -> dict:
    """All tables of a group of 16 with both outcomes: the released float32 scores against the exact ones."""
    tables = no_evidence = missed = 0
    worst = 0.0
    for n_T in range(1, G):
        p, released = fisher_p_values(n_T, G - n_T), released_fisher_scores(n_T, G - n_T)
        tables += p.size
        no_evidence += (p == 1).sum()
        missed += ((p == 1) & (released != 0)).sum()
        # The score is exp(-2 p): p follows from it wherever the score is not 0.
        released_p = np.where(released == 0, 1.0, -np.log(np.where(released == 0, 1.0, released)) / 2)
        worst = max(worst, np.abs(released_p - p).max())
    return {
        "tables": tables,
        "p_is_1": int(no_evidence),
        "p_is_1_but_scored_as_evidence": int(missed),
        "largest_error_of_p": float(worst),
        "score_of_no_evidence": {"exact": float(fisher_scores(8, 8)[4, 4]), "released": float(np.exp(-2))},
    }


def golden_files() -> dict:
    """Tokens whose advantage the float32 Fisher table moves, and those that h2 = 2 instead of 1 would move."""
    if not GOLDEN.is_dir():
        print(f"{GOLDEN} is absent: figures on the golden files are left out")
        return {}
    result = {}
    for path in sorted(GOLDEN.glob("*.npz")):
        data = np.load(path)
        arguments = [torch.from_numpy(data[key]) for key in ("token_ids", "mask", "rewards", "group_ids")]
        mask = arguments[1].bool()
        default = ktae_advantages(*arguments)
        changed = {
            "float32_fisher": ktae_advantages(*arguments, config=KTAEConfig.released()),
            "h2_of_2": ktae_advantages(*arguments, config=KTAEConfig(information_gain_weight=2.0)),
        }
        result[path.stem] = {
            name: {
                "share_off_by_1e-3": round((difference[mask] > 1e-3).double().mean().item(), 4),
                "largest": round(difference.max().item(), 4),
            }
            for name, advantages in changed.items()
            for difference in [(advantages - default).abs()]
        }
    return result


def rare_tokens() -> dict:
    """Eight correct and eight incorrect rollouts of 100 tokens; the value of two kinds of token."""
    filler, rare, useful = 0, 1, 2
    ids = torch.full((16, 100), filler)
    ids[0, 0] = rare  # once, in one correct rollout
    ids[1:7, 1] = useful  # in 6 of 8 correct rollouts
    ids[8:11, 1] = useful  # and in 3 of 8 incorrect ones
    rewards, one_group = torch.tensor([1.0] * 8 + [0.0] * 8), torch.zeros(16, dtype=torch.long)
    result = {}
    for name, config in (("paper", KTAEConfig()), ("without_term_frequency", KTAEConfig(term_frequency_weight=0.0))):
        for fisher in ("exact", "released"):
            config = dataclasses.replace(config, fisher=fisher)
            values = key_token_values(ids, torch.ones_like(ids), rewards, one_group, config=config)
            result[f"{name}_{fisher}"] = {
                "once_in_1_of_8_correct": round(values[0, 0].item(), 4),
                "in_6_of_8_correct_3_of_8_incorrect": round(values[1, 1].item(), 4),
            }
    return result


def own_outcome(groups: int = 200) -> dict:
    """Labels drawn at random, so that no token says anything: the mean value inside correct and incorrect rollouts."""
    generator = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, 2001, dtype=torch.float64)
    ids = torch.multinomial(weights, groups * G * 300, replacement=True, generator=generator).view(groups * G, 300)
    correct = torch.rand(groups, G, generator=generator).argsort(dim=1).flatten() < G // 2
    group_ids = torch.arange(groups).repeat_interleave(G)
    values = key_token_values(ids, torch.ones_like(ids), correct, group_ids)
    by_group = values.mean(dim=1).view(groups, G)
    right = (by_group * correct.view(groups, G)).sum(dim=1) / (G // 2)
    wrong = (by_group * ~correct.view(groups, G)).sum(dim=1) / (G // 2)
    error = (right - wrong).std() / groups**0.5
    return {
        "groups": groups,
        "mean_value_in_correct": round(right.mean().item(), 4),
        "mean_value_in_incorrect": round(wrong.mean().item(), 4),
        "standard_error_of_difference": round(error.item(), 4),
        "share_beyond_0.9": round((values.abs() > 0.9).double().mean().item(), 4),
    }


def seconds(repeats: int = 7) -> dict:
    """One group of 16 x 3072 tokens, Zipf-distributed ids from a vocabulary of 150,000."""
    generator = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, 150_001, dtype=torch.float64)
    ids = torch.multinomial(weights, G * 3072, replacement=True, generator=generator).view(G, 3072)
    rewards = torch.tensor([1.0, 0.0] * (G // 2))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        ktae_advantages(ids, torch.ones_like(ids), rewards, torch.zeros(G, dtype=torch.long))
        times.append(time.perf_counter() - begun)
    return {"median": round(sorted(times)[repeats // 2], 5), "min": round(min(times), 5), "max": round(max(times), 5)}


if __name__ == "__main__":
    results = {
        "fisher_tables_of_a_group_of_16": fisher_tables(),
        "golden_files": golden_files(),
        "rare_tokens": rare_tokens(),
        "own_outcome_under_random_labels": own_outcome(),
        "seconds_for_16_x_3072_tokens": seconds(),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
