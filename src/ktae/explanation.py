"""Key-token tables: for every (group, unit) the counts, the statistics, the value, and whether it beats chance.

Shape suffixes: _B one entry a rollout, _BT one a token, _U one a (group, unit) pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktae import checks
from ktae.advantages import direction, strength, unit_tables
from ktae.association import fisher_p_values, information_gain
from ktae.chance import benjamini_hochberg, permutation_p_values
from ktae.config import KTAEConfig
from ktae.context import preceding
from ktae.contingency import Contingency, contingency
from ktae.direction import cohen, term_frequencies
from ktae.extras import require


@dataclass(frozen=True, eq=False)
class KeyTokenTable:
    """One row for each unit of a group, a token id or, with `config.context`, one in its context; U entries each.

    Attributes:
        group: int64, the group's id.
        unit: int64, the token id.
        text: str, the token's text; "" if no texts were given.
        context: str, the text of the `config.context` tokens before it, fewer at a rollout's start; their ids where
            no texts were given; "" if the context does not count.
        a, b: int64, correct and incorrect rollouts that hold it.
        c, d: int64, correct and incorrect rollouts that lack it; with `config.compare` "context" those that reached
            its context and went on with another token.
        fisher_p: float64 in (0, 1], Fisher's exact test of the 2x2 table, two-sided, whatever `config.fisher` says.
        information_gain: float64 in [0, 1], bits.
        cohen_h: float64 in [-pi/2, pi/2], without the factor 2, as the formula uses it (`ktae.direction.cohen`).
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

    def sort(self, by: str, *, descending: bool = False) -> KeyTokenTable:
        """The same rows sorted by a column; ties keep their order.

        Raises:
            ValueError: there is no such column.
        """
        columns = self.columns()
        if by not in columns:
            raise ValueError(f"by must be one of {', '.join(columns)}, got {by!r}")
        _, rank_U = np.unique(columns[by], return_inverse=True)
        return self._take(np.argsort(-rank_U if descending else rank_U, kind="stable"))

    def of_group(self, group: int) -> KeyTokenTable:
        """The rows of one group.

        Raises:
            ValueError: the table has no such group.
        """
        rows = np.flatnonzero(self.group == group)
        if not len(rows):
            raise ValueError(f"group must be one of the table's, got {group!r}")
        return self._take(rows)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame. Raises an ImportError if the extra `report` is not installed."""
        return require("pandas", extra="report").DataFrame(self.columns())

    def to_parquet(self, path: str | Path) -> None:
        """Writes the columns to a Parquet file. Raises an ImportError if the extra `report` is not installed."""
        arrow = require("pyarrow", extra="report")
        texts = {name: arrow.array(getattr(self, name), arrow.string()) for name in ("text", "context")}
        columns = {**self.columns(), **texts}
        require("pyarrow.parquet", extra="report").write_table(arrow.table(columns), path)

    def _take(self, rows: np.ndarray) -> KeyTokenTable:
        place_U = np.full(len(self) + 1, -1)  # one more, for index -1
        place_U[rows] = np.arange(len(rows))
        taken = {name: values[rows] for name, values in self.columns().items()}
        return replace(self, **taken, unit_index=place_U[self.unit_index])


def explain(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    texts: Mapping[int, str] | None = None,
    tokenizer: Any = None,
    permutations: int = 20_000,
    seed: int = 0,
) -> KeyTokenTable:
    """What made each token a key token: the table behind `ktae.key_token_values`, a row a (group, token id).

    Args:
        token_ids, mask, rewards, group_ids, config: those of `ktae.ktae_advantages`, with its errors.
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
    rewards_B = checks.rewards(rewards)
    group_B, groups = checks.group_indices(group_ids, rewards_B)
    ids_BT, mask_BT = checks.tokens_and_mask(token_ids, mask, rewards_B)
    scored_B = ~rewards_B.isnan()
    correct_B = rewards > config.correct_above
    counted_BT = mask_BT & scored_B[:, None]
    rollouts = correct_B, scored_B, group_B, groups
    table = unit_tables(ids_BT, counted_BT, *rollouts, config=config)
    context_K = None
    if config.compare == "context":
        contexts = contingency(preceding(ids_BT, counted_BT, config.context), counted_BT, *rollouts)
        context_K = contexts.unit_index_BT[counted_BT].cpu()

    row_K, _ = counted_BT.nonzero(as_tuple=True)
    unit_K = table.unit_index_BT[counted_BT]
    id_U = torch.empty_like(table.a_U)
    id_U[unit_K] = ids_BT[counted_BT]
    group_U = torch.empty_like(table.a_U)
    group_U[unit_K] = group_B[row_K]
    valued_U = ~torch.isin(id_U, torch.tensor(config.exclude_token_ids, dtype=torch.int64, device=id_U.device))
    value_U = torch.where(valued_U, table_values(table, config), 0.0)

    permutation_p_U = np.full(len(id_U), np.nan)
    if permutations:
        permutation_p_U = permutation_p_values(
            lambda permuted: (_values_in_one_group if context_K is None else table_values)(permuted, config),
            row_K.cpu(),
            unit_K.cpu(),
            context_K,
            *(tensor.cpu() for tensor in (group_U, group_B, scored_B, correct_B, value_U)),
            permutations=permutations,
            seed=seed,
        )
    if tokenizer is not None:
        texts = {token_id: tokenizer.decode([token_id]) for token_id in torch.unique(id_U).tolist()}
    labels = torch.unique(group_ids.long())
    tf_T_U, tf_F_U = term_frequencies(table)

    def array(tensor: Tensor) -> np.ndarray:
        return tensor.cpu().numpy()

    whole = KeyTokenTable(
        group=array(labels[group_U]),
        unit=array(id_U),
        text=np.array([(texts or {}).get(token_id, "") for token_id in id_U.tolist()], dtype=object),
        context=_contexts(ids_BT, counted_BT, table, config.context, texts),
        a=array(table.a_U),
        b=array(table.b_U),
        c=array(table.n_T_U - table.a_U),
        d=array(table.n_F_U - table.b_U),
        fisher_p=_fisher_p(table),
        information_gain=array(information_gain(table)),
        cohen_h=array(cohen(table)),
        tf_correct=array(tf_T_U),
        tf_incorrect=array(tf_F_U),
        direction=array(direction(table, config)),
        value=array(value_U.float()),
        occurrences=array(table.count_T_U + table.count_F_U),
        permutation_p=permutation_p_U,
        adjusted_p=benjamini_hochberg(permutation_p_U, array(group_U)),
        unit_index=array(table.unit_index_BT),
    )
    return whole._take(np.lexsort((whole.unit, -whole.occurrences, -np.abs(whole.value), whole.group)))


def table_values(table: Contingency, config: KTAEConfig) -> Tensor:
    """The value of each of the U units, from its table and counts alone: what `ktae.key_token_values` spreads.

    Returns:
        (U,) float64.
    """
    return _values(strength(table, config), table, config)


def _values_in_one_group(table: Contingency, config: KTAEConfig) -> Tensor:
    """`table_values` of many tables with the same n_T and n_F: the strength of each possible one is found once."""
    n_T, n_F = int(table.n_T_U[0]), int(table.n_F_U[0])
    a_U, b_U = torch.arange((n_T + 1) * (n_F + 1)) // (n_F + 1), torch.arange((n_T + 1) * (n_F + 1)) % (n_F + 1)
    all_of = {"n_T_U": torch.full_like(a_U, n_T), "n_F_U": torch.full_like(a_U, n_F)}
    possible = replace(table, a_U=a_U, b_U=b_U, **all_of)
    return _values(strength(possible, config)[table.a_U * (n_F + 1) + table.b_U], table, config)


def _values(strength_U: Tensor, table: Contingency, config: KTAEConfig) -> Tensor:
    value_U = torch.tanh(strength_U * direction(table, config) / 2)
    mixed_U = (table.n_T_U > 0) & (table.n_F_U > 0)
    return torch.where(mixed_U, config.scale * value_U, 0.0)


def _contexts(
    ids_BT: Tensor, counted_BT: Tensor, table: Contingency, length: int, texts: Mapping[int, str] | None
) -> np.ndarray:
    """(U,) str, what comes before each unit where it stands first."""
    units = len(table.a_U)
    if not length:
        return np.array([""] * units, dtype=object)
    rows, starts = counted_BT.nonzero(as_tuple=True)[0].tolist(), {}
    ids = ids_BT[counted_BT].tolist()
    context_U = [""] * units
    seen = set()
    for place, (row, unit) in enumerate(zip(rows, table.unit_index_BT[counted_BT].tolist(), strict=True)):
        begin = starts.setdefault(row, place)
        if unit not in seen:
            seen.add(unit)
            before = ids[max(begin, place - length) : place]
            context_U[unit] = " ".join(map(str, before)) if texts is None else "".join(texts.get(i, "") for i in before)
    return np.array(context_U, dtype=object)


def _fisher_p(table: Contingency) -> np.ndarray:
    a_U, b_U, n_T_U, n_F_U = (part.cpu().numpy() for part in (table.a_U, table.b_U, table.n_T_U, table.n_F_U))
    p_U = np.empty(len(a_U))
    for n_T, n_F in set(zip(n_T_U.tolist(), n_F_U.tolist(), strict=True)):
        at = (n_T_U == n_T) & (n_F_U == n_F)
        p_U[at] = fisher_p_values(n_T, n_F)[a_U[at], b_U[at]]
    return p_U
