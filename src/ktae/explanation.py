"""Key-token tables: for every (group, unit) the counts, the statistics, the value, and whether it beats chance.

Shape suffixes: _B one entry a rollout, _BT one a token, _U one a (group, unit) pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktae import checks, scores
from ktae.chance import benjamini_hochberg, permutation_p_values
from ktae.config import KTAEConfig
from ktae.contingency import Contingency, contingency
from ktae.units import units


@dataclass(frozen=True, eq=False)
class KeyTokenTable:
    """One row for each unit of a group, a token id or, with `config.context`, one in its context; U entries each.

    Attributes:
        group: int64, the group's id.
        unit: int64, the token id.
        text: str, the token's text; "" if no texts were given.
        context: str, the text of the tokens before it that its unit is made of (`config.context`, `config.ngram`),
            fewer at a rollout's start; their ids where no texts were given; "" if there are none.
        a, b: int64, correct and incorrect rollouts that hold it.
        c, d: int64, correct and incorrect rollouts that lack it; with `config.context` or `states` those that reached
            its context or state and went on with another token.
        fisher_p: float64 in (0, 1], Fisher's exact test of the 2x2 table, two-sided, whatever `config.fisher` says.
        information_gain: float64 in [0, 1], bits.
        cohen_h: float64 in [-pi/2, pi/2], without the factor 2, as the formula uses it (`ktae.scores.cohens_h`).
        tf_correct, tf_incorrect: float64 >= 0, BM25-normalised frequency among the tokens of the correct and of the
            incorrect rollouts.
        direction: float64, > 0 towards correct; cohen_h + h3 (tf contrast).
        value: float32, the key-token value: the same numbers as `ktae.key_token_values`; with `config.centered`, those
            before the mean over the rollout is subtracted.
        occurrences: int64, in the group's scored rollouts.
        permutation_p: float64 in (0, 1]: how often chance alone does as well. The labels correct and incorrect are
            shuffled among the group's scored rollouts, everything else stays; p is the share of labellings with a
            |value| no smaller than the observed one. Exact if there are no more labellings than `permutations`; else
            (1 + hits) / (1 + permutations) over random ones. 1 where the value is 0; NaN if not asked for.
        adjusted_p: float64, permutation_p adjusted over the units of the group by Benjamini and Hochberg: among the
            units with adjusted_p <= q, a share of q is expected to be chance.
        unit_index: (N, T) int64, each token's row in this table; -1 where it was not counted or its row is left out.
    """

    group: np.ndarray
    unit: np.ndarray
    text: np.ndarray
    context: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    fisher_p: np.ndarray
    information_gain: np.ndarray
    cohen_h: np.ndarray
    tf_correct: np.ndarray
    tf_incorrect: np.ndarray
    direction: np.ndarray
    value: np.ndarray
    occurrences: np.ndarray
    permutation_p: np.ndarray
    adjusted_p: np.ndarray
    unit_index: np.ndarray

    def __len__(self) -> int:
        return len(self.unit)

    def columns(self) -> dict[str, np.ndarray]:
        """Name -> (U,) array, in the order of the attributes."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "unit_index"}

    def rows(self) -> list[dict[str, Any]]:
        """One dict of plain Python values a row."""
        columns = {name: values.tolist() for name, values in self.columns().items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def explain(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    texts: Mapping[int, str] | None = None,
    tokenizer: Any = None,
    states: Tensor | None = None,
    permutations: int = 20_000,
    seed: int = 0,
) -> KeyTokenTable:
    """What made each token a key token: the table behind `ktae.key_token_values`, a row a (group, token id).

    Args:
        token_ids, mask, rewards, group_ids, config, states: those of `ktae.ktae_advantages`, with its errors.
        texts: the text of each token id; "" for those it lacks.
        tokenizer: in place of `texts`: anything whose `decode` takes a list of token ids.
        permutations: labellings looked at for permutation_p: all of them in groups that have no more, else so many
            random ones. 16 rollouts, half of them correct, have 12,870. 0 for no permutation_p (NaN).
        seed: of the random labellings. The same seed gives a group the same labellings whatever the order of rows
            and whatever other groups there are.

    Returns:
        The table, by group, and in a group by |value|, then occurrences, largest first, then token id. Unscored
        rollouts are not counted.

    Raises:
        ValueError, TypeError: an argument is out of contract; the message names it.

    >>> ids = torch.tensor([[5, 7], [5, 9]])
    >>> table = explain(ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), texts={7: "yes"})
    >>> [(row["unit"], row["text"], row["a"], row["b"], row["value"]) for row in table.rows()]
    [(7, 'yes', 1, 0, 1.0), (9, '', 0, 1, -1.0), (5, '', 1, 1, 0.0)]
    >>> table.permutation_p  # of the two ways to label two rollouts, both make 7 and 9 key tokens
    array([1., 1., 1.])
    """
    checks.config(config)
    if texts is not None and tokenizer is not None:
        raise ValueError("texts and tokenizer exclude each other, got both")
    for name, value in (("permutations", permutations), ("seed", seed)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {value!r}")
    with torch.device("cpu"):  # whatever the default device is
        rewards_B = checks.rewards(rewards)
        all_groups_B = checks.group_indices(group_ids, rewards)
        checks.token_types(token_ids, mask, rewards)
        checks.states(states, token_ids)
        scored_B = ~rewards_B.isnan()
        all_ids_BT, all_mask_BT = token_ids.cpu().long(), checks.token_values(token_ids, mask).cpu()
        ids_BT, mask_BT, group_B = all_ids_BT[scored_B], all_mask_BT[scored_B], all_groups_B[scored_B]
        correct_B = (rewards.cpu() > config.correct_above)[scored_B]
        states_BT = None if states is None else states.cpu()[scored_B].long()
        units_BT, within_BT = units(ids_BT, mask_BT, states_BT, config)
        table = contingency(units_BT, mask_BT, correct_B, group_B, within_BT)

        row_K, _ = mask_BT.nonzero(as_tuple=True)
        unit_K = table.unit_index_BT[mask_BT]
        id_U, group_U = torch.empty_like(table.within_U), torch.empty_like(table.within_U)
        id_U[unit_K] = ids_BT[mask_BT]
        group_U[unit_K] = group_B[row_K]
        valued_U = ~torch.isin(id_U, torch.tensor(config.exclude_token_ids, dtype=torch.int64, device="cpu"))
        value_U = torch.where(valued_U, config.scale * scores.key_token_values(table, config), 0.0)
        unit_index_BT = torch.full_like(all_ids_BT, -1)
        unit_index_BT[scored_B] = table.unit_index_BT

        permutation_p_U = np.full(len(id_U), np.nan)
        if permutations:
            permutation_p_U = permutation_p_values(
                lambda permuted: config.scale * scores.key_token_values(permuted, config),
                *(row_K, unit_K, None if within_BT is None else table.within_U[unit_K]),
                *(group_U, group_B, correct_B, value_U),
                permutations=permutations,
                seed=seed,
            )
        if tokenizer is not None:
            texts = {token_id: tokenizer.decode([token_id]) for token_id in torch.unique(id_U).tolist()}
        labels = torch.unique(group_ids.cpu().long())
        tf_T_U, tf_F_U = scores.term_frequencies(table)

        whole = KeyTokenTable(
            group=labels[group_U].numpy(),
            unit=id_U.numpy(),
            text=np.array([(texts or {}).get(token_id, "") for token_id in id_U.tolist()], dtype=object),
            context=_contexts(ids_BT, mask_BT, table, max(config.context, config.ngram - 1), texts),
            a=table.a_U.numpy(),
            b=table.b_U.numpy(),
            c=(table.n_T_U - table.a_U).numpy(),
            d=(table.n_F_U - table.b_U).numpy(),
            fisher_p=scores.look_up(scores.fisher_p_values, table).numpy(),
            information_gain=scores.look_up(scores.information_gains, table).numpy(),
            cohen_h=scores.look_up(scores.cohens_h, table).numpy(),
            tf_correct=tf_T_U.numpy(),
            tf_incorrect=tf_F_U.numpy(),
            direction=scores.directions(table, config).numpy(),
            value=value_U.float().numpy(),
            occurrences=(table.count_T_U + table.count_F_U).numpy(),
            permutation_p=permutation_p_U,
            adjusted_p=benjamini_hochberg(permutation_p_U, group_U.numpy()),
            unit_index=unit_index_BT.numpy(),
        )
        order = np.lexsort((whole.unit, -whole.occurrences, -np.abs(whole.value), whole.group))
        place_U = np.append(np.argsort(order), -1)  # the last is for tokens without a row, whose index is -1
        columns = {name: values[order] for name, values in whole.columns().items()}
        return replace(whole, **columns, unit_index=place_U[whole.unit_index])


def _contexts(
    ids_BT: Tensor, counted_BT: Tensor, table: Contingency, length: int, texts: Mapping[int, str] | None
) -> np.ndarray:
    """(U,) str, what comes before each unit where it stands first."""
    context_U = np.full(len(table.a_U), "", dtype=object)
    if length:
        row_K, id_K = counted_BT.nonzero()[:, 0].numpy(), ids_BT[counted_BT].tolist()
        begin_K = np.searchsorted(row_K, row_K)
        _, first_U = np.unique(table.unit_index_BT[counted_BT].numpy(), return_index=True)
        for unit, place in enumerate(first_U.tolist()):
            before = id_K[max(begin_K[place], place - length) : place]
            context_U[unit] = " ".join(map(str, before)) if texts is None else "".join(texts.get(i, "") for i in before)
    return context_U
