"""The slow, independent truth: KTAE written as plain loops over Python numbers.

It follows the definitions one by one, a token of a group at a time, and shares nothing with the package: no
tensors, no look-up tables, SciPy for Fisher's exact test. Inputs are
nested lists or NumPy arrays, outputs are NumPy float64.
"""

import math
from functools import cache

import numpy as np
from scipy.stats import fisher_exact

GRPO_EPS = 1e-6
K1, LENGTH_WEIGHT = 2.0, 0.5
RATIO_EPS = 1e-5


# Rollout advantages


def grpo(rewards, group_ids):
    def formula(scores, mean):
        variance = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
        return [(score - mean) / (math.sqrt(variance) + GRPO_EPS) for score in scores]

    return _per_group(rewards, group_ids, formula)


def dr_grpo(rewards, group_ids):
    return _per_group(rewards, group_ids, lambda scores, mean: [score - mean for score in scores])


def rloo(rewards, group_ids):
    def formula(scores, mean):
        others = [scores[:i] + scores[i + 1 :] for i in range(len(scores))]
        return [score - math.fsum(rest) / len(rest) for score, rest in zip(scores, others, strict=True)]

    return _per_group(rewards, group_ids, formula)


def _per_group(rewards, group_ids, formula):
    """A formula of the scored rewards of each group and their mean; one alone is kept, and unscored rollouts get 0."""
    rewards = [float(reward) for reward in rewards]
    advantages = np.zeros(len(rewards))
    for rows in _scored_rows(rewards, group_ids):
        scores = [rewards[row] for row in rows]
        advantages[rows] = formula(scores, math.fsum(scores) / len(scores)) if len(scores) > 1 else scores
    return advantages


def _scored_rows(rewards, group_ids):
    """The rows of each group that carry a reward (not NaN)."""
    rows_of = {}
    for row, (reward, group) in enumerate(zip(rewards, group_ids, strict=True)):
        if not math.isnan(reward):
            rows_of.setdefault(int(group), []).append(row)
    return list(rows_of.values())


# Association strength of the table (a, b, n_T, n_F)


def fisher_score(a, b, n_t, n_f, kind="exact"):
    """F = exp(-2p), and 0 when the table is no evidence at all (p = 1)."""
    p = {"exact": fisher_p_value, "released": released_p_value}[kind](a, b, n_t, n_f)
    return 0.0 if p == 1.0 else math.exp(-2 * p)


@cache
def fisher_p_value(a, b, n_t, n_f):
    p = float(fisher_exact([[a, b], [n_t - a, n_f - b]]).pvalue)
    # p = 1 exactly or p <= 1 - 1/(G+1): the most probable table weighs at least 1/(G+1).
    return 1.0 if p > 1 - 1e-9 else p


@cache
def released_p_value(a, b, n_t, n_f):
    """The authors' float32 test, each step computed in float64 and rounded; torch's order of summation.

    Rounding decides whether p == 1.0, and torch's own float32 operations round differently on some processors.
    """
    n, held = n_t + n_f, a + b
    single = np.float32

    def log_comb(n, k):
        of_n, of_k, of_rest = (single(math.lgamma(count + 1)) for count in (n, k, n - k))
        return single(single(of_n - of_k) - of_rest)

    def probability(k):
        if not max(0, held - n_f) <= k <= min(held, n_t):
            return single(0)
        log_p = single(single(log_comb(n_t, k) + log_comb(n_f, held - k)) - log_comb(n, held))
        return single(math.exp(log_p))

    terms = [p if p <= probability(a) else single(0) for p in map(probability, range(n_t + 1))]
    return float(_sum_of_float32(terms))


def _sum_of_float32(terms):
    """Eight lanes, each in four parts; what is left over comes first. Fewer than eight terms are one lane."""
    if len(terms) < 8:
        return _sum_of_lane(terms)
    whole = len(terms) - len(terms) % 8
    total = np.float32(0)
    for term in terms[whole:] + [_sum_of_lane(terms[lane:whole:8]) for lane in range(8)]:
        total = np.float32(total + term)
    return total


def _sum_of_lane(terms):
    whole = len(terms) - len(terms) % 4
    parts = [np.float32(0)] * 4
    for i, term in enumerate(terms):
        part = i % 4 if i < whole else 0
        parts[part] = np.float32(parts[part] + term)
    total = parts[0]
    for part in parts[1:]:
        total = np.float32(total + part)
    return total


def information_gain(a, b, n_t, n_f):
    """H(correct) - H(correct | contains the token), in bits."""
    with_token, without_token = a + b, n_t + n_f - a - b
    conditional = with_token * _entropy(a, b) + without_token * _entropy(n_t - a, n_f - b)
    return _entropy(n_t, n_f) - conditional / (n_t + n_f)


def _entropy(*counts):
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)


# Direction


def cohen(a, b, n_t, n_f):
    return math.asin(math.sqrt(a / n_t)) - math.asin(math.sqrt(b / n_f))


def term_frequency(count, length, average_length):
    if length == 0:
        return 0.0
    frequency = count / length
    normaliser = K1 * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * length / average_length)
    return frequency * (K1 + 1) / (frequency + normaliser)


def term_frequency_contrast(count_t, count_f, length_t, length_f):
    average = (length_t + length_f) / 2
    tf_t = term_frequency(count_t, length_t, average)
    tf_f = term_frequency(count_f, length_f, average)
    return tf_t / (tf_f + RATIO_EPS) - tf_f / (tf_t + RATIO_EPS)


# The whole estimator


def ktae_advantages(token_ids, mask, rewards, group_ids, *, rollout_advantages=None, **config):
    if rollout_advantages is None:
        rollout_advantages = grpo(rewards, group_ids)
    key_values = key_token_values(token_ids, mask, rewards, group_ids, **config)
    scored = ~np.isnan(np.asarray(rewards, dtype=float))
    counts = np.asarray(mask, dtype=float) * scored[:, None]
    return (np.asarray(rollout_advantages, dtype=float)[:, None] + key_values) * counts


def key_token_values(
    token_ids,
    mask,
    rewards,
    group_ids,
    *,
    fisher_weight=1.0,
    information_gain_weight=1.0,
    term_frequency_weight=1.0,
    correct_above=0.0,
    exclude_token_ids=(),
    scale=1.0,
    fisher="exact",
    context=0,
    ngram=1,
    centered=False,
    states=None,
):
    """Excluded ids count like any other token in the tables and the lengths; only their value is 0."""
    rewards = [float(reward) for reward in rewards]
    values = np.zeros(np.shape(token_ids))

    def places(row):
        """(column, what it is compared within, unit, token) of every token inside the mask."""
        columns = [t for t, counts in enumerate(mask[row]) if counts]
        tokens = [int(token_ids[row][t]) for t in columns]
        found = []
        for i, t in enumerate(columns):
            state = None if states is None else int(states[row][t])
            within = state, tuple(tokens[max(0, i - context) : i])
            unit = within, tuple(tokens[max(0, i - ngram + 1) : i + 1]), tokens[i]
            found.append((t, within, unit, tokens[i]))
        return found

    for rows in _scored_rows(rewards, group_ids):
        correct = [places(row) for row in rows if rewards[row] > correct_above]
        incorrect = [places(row) for row in rows if not rewards[row] > correct_above]

        def value(within, unit, correct=correct, incorrect=incorrect):
            held_t, held_f = (_holding(side, 2, unit) for side in (correct, incorrect))
            if context or states is not None:
                all_t, all_f = (_holding(side, 1, within) for side in (correct, incorrect))
            else:
                all_t, all_f = ([len(rollout) for rollout in side] for side in (correct, incorrect))
            a, b, n_t, n_f = len(held_t), len(held_f), len(all_t), len(all_f)
            if n_t == 0 or n_f == 0:
                return 0.0
            strength = (
                fisher_weight * fisher_score(a, b, n_t, n_f, fisher)
                + information_gain_weight * information_gain(a, b, n_t, n_f)
            ) / (fisher_weight + information_gain_weight)
            direction = cohen(a, b, n_t, n_f) + term_frequency_weight * term_frequency_contrast(
                sum(held_t), sum(held_f), sum(all_t), sum(all_f)
            )
            return scale * math.tanh(strength * direction / 2)

        value = cache(value)
        for row in rows:
            credited = [(t, value(*of)) for t, *of, token in places(row) if token not in exclude_token_ids]
            mean = math.fsum(v for _, v in credited) / len(credited) if centered and credited else 0.0
            for t, v in credited:
                values[row, t] = v - mean
    return values


def _holding(rollouts, field, wanted):
    """Of each rollout that holds it: how often."""
    counts = [sum(place[field] == wanted for place in rollout) for rollout in rollouts]
    return [count for count in counts if count]
