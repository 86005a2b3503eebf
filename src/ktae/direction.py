"""Which way a unit points: towards correct rollouts (> 0) or towards incorrect ones (< 0)."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.contingency import Contingency

BM25_K1 = 2.0
BM25_B = 0.5
RATIO_EPS = 1e-5


def cohen(table: Contingency) -> Tensor:
    """Cohen's h without its factor 2: asin(sqrt(a / n_T)) - asin(sqrt(b / n_F)).

    Returns:
        (U,) float64 in [-pi/2, pi/2]; a class without rollouts has the share 0.
    """

    def angle(held_U: Tensor, rollouts_U: Tensor) -> Tensor:
        return torch.asin(torch.sqrt(held_U.double() / rollouts_U.clamp(min=1)))

    return angle(table.a_U, table.n_T_U) - angle(table.b_U, table.n_F_U)


def term_frequency_contrast(table: Contingency) -> Tensor:
    """tf_T / (tf_F + 1e-5) - tf_F / (tf_T + 1e-5), of `term_frequencies` (paper, section 3).

    Returns:
        (U,) float64, unbounded in theory, about +-1e5 at most.
    """
    tf_T_U, tf_F_U = term_frequencies(table)
    return tf_T_U / (tf_F_U + RATIO_EPS) - tf_F_U / (tf_T_U + RATIO_EPS)


def term_frequencies(table: Contingency) -> tuple[Tensor, Tensor]:
    """BM25-normalised term frequencies tf_T and tf_F in the correct and in the incorrect rollouts.

    All correct rollouts of a group make one document of length L_T, all incorrect ones another of length L_F.
    With avg = (L_T + L_F) / 2, k1 = 2, b = 0.5 and f_T = count_T / L_T,
    tf_T = f_T (k1 + 1) / (f_T + k1 (1 - b + b L_T / avg)), and tf_F alike (paper, section 3).

    Returns:
        Two of (U,) float64 >= 0; an empty document has frequency 0.
    """
    average_U = (table.length_T_U + table.length_F_U).double() / 2

    def frequency(count_U: Tensor, length_U: Tensor) -> Tensor:
        f_U = count_U.double() / length_U.clamp(min=1)
        return f_U * (BM25_K1 + 1) / (f_U + BM25_K1 * (1 - BM25_B + BM25_B * length_U / average_U))

    return frequency(table.count_T_U, table.length_T_U), frequency(table.count_F_U, table.length_F_U)
