"""`ktae plot`: pictures of one group's tokens and of training, as PNG, SVG or PDF.

ktae plot heatmap runs/quickstart --tokenizer words --group grpo+ktae/100/3 --out heatmap.pdf
ktae plot curves runs/quickstart --out curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ktae.pictures.curves import algorithms, draw_curves, read_curves
from ktae.pictures.style import SUFFIXES, save
from ktae.pictures.tokens import TokenRow, draw_heatmap
from ktae.report.options import add_rollout_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)
    how = {"epilog": parser.epilog, "formatter_class": parser.formatter_class, "allow_abbrev": False}
    heatmap = kinds.add_parser("heatmap", help="a group's rollouts, tokens coloured by their key-token value", **how)
    add_rollout_arguments(heatmap)
    heatmap.add_argument("--group", metavar="GROUP", required=True, help="as for `ktae explain`, which lists them")
    curves = kinds.add_parser("curves", help="metrics of a run over its updates", **how)
    curves.add_argument("run", type=Path, help="a run's folder, or its metrics.jsonl")
    for kind in (heatmap, curves):
        kind.add_argument("--out", type=Path, required=True, help=", ".join(SUFFIXES))


def run(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in {', '.join(SUFFIXES)}, got {arguments.out.name}")
    from ktae.report.groups import load_group  # torch
    from ktae.train.recipe import label_of

    if arguments.kind == "curves":
        curves = read_curves(arguments.run)
        picture = draw_curves(curves, {name: label_of(name) for name in algorithms(curves)})
    else:
        group = load_group(arguments, permutations=0)
        scored = zip(group.texts, group.scores, group.correct, strict=True)
        rows = [TokenRow(texts, of.value_T.tolist(), correct, of.advantage) for texts, of, correct in scored]
        picture = draw_heatmap(rows)
    save(picture, arguments.out)
