"""Real wording: what takes the place of two preceding tokens as a state? Writes wording.md in two minutes of one core.

    PYTHONPATH=experiments/replication python experiments/credit/wording.py

Word problems, 128 groups of 16, split "explore": this is where the number of terms was chosen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import word_problems
from torch import Tensor

from ktae import markdown
from ktae.bench.controls import ESTIMATORS
from ktae.bench.credit import SPLITS, judge
from ktae.bench.labelled import LabelledRollouts, assemble
from ktae.config import KTAEConfig
from ktae.estimators import Estimator
from ktae.estimators.back_off import back_off
from ktae.estimators.key_tokens import key_tokens
from ktae.seeds import derived_seed
from ktae.states import calculation

PLAIN = KTAEConfig(term_frequency_weight=0.0)
SHOWN = ("top", "after", "before", "slip", "sign")


def main() -> None:
    seed = derived_seed(SPLITS["explore"], 0)
    traces = word_problems.traces(128, 16, seed)
    rollouts = assemble(traces, 16, separator="")

    def within(states_of, config: KTAEConfig = PLAIN) -> Estimator:
        rows = [torch.tensor([*states_of(trace.words), 0]) for trace in traces]
        states_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

        def estimator(given: LabelledRollouts) -> Tensor:
            return key_tokens(config)(replace(given, states=states_BT))

        return estimator

    estimators = {
        **{f"the last {n} tokens": key_tokens(replace(PLAIN, context=n)) for n in (1, 2, 3, 4, 6, 8)},
        **{f"back-off to {n} tokens": partial(back_off, orders=n) for n in (3, 8, 16)},
        **{f"the last {n} numbers and signs": within(partial(calculation, terms=n)) for n in (1, 2, 3, 4, 5, 6, 8, 12)},
        "all numbers and signs": within(partial(calculation, terms=1000)),
        "the last 6 and one token": within(calculation, replace(PLAIN, context=1)),
        **{f"`{name}`": ESTIMATORS[name] for name in ("ktae", "prefix_tree", "surprise", "oracle")},
    }
    found = judge(rollouts, estimators, seed)
    lines = [[name, *(f"{of[m][0]:.3f}" for m in SHOWN)] for name, of in found.items()]
    text = markdown.table(["tokens are compared within", *SHOWN], lines)
    (Path(__file__).parent / "wording.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
