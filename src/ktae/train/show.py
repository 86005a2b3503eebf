"""Two rollouts on the console every so many updates: what the policy writes, and which tokens are credited."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import TrainerCallback

from ktae.train.callbacks import is_update
from ktae.train.folder import is_shown

_KEY_TOKENS = 6
_CHARACTERS = 200  # of prompts, and of completions without key tokens
_TOKENS = 200


class Show(TrainerCallback):
    """Shows the best and the worst rollout of one group, with the key tokens where there are any.

    On a terminal tokens are coloured, blue on credit and orange on blame; elsewhere the key tokens are listed.

    Args:
        trainer: the trainer whose rollouts are shown.
        tokenizer: to turn token ids into text.
        label: the algorithm.
        console: where to.
        every: updates from one to the next; 0 for never.
    """

    def __init__(self, trainer: Any, tokenizer: Any, label: str, console: Console, every: int) -> None:
        self._trainer, self._tokenizer, self._label = trainer, tokenizer, label
        self._console, self._every = console, every

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not is_update(state, logs) or not is_shown(state.global_step, self._every):
            return
        rows = self._trainer.latest_rollouts
        name = self._trainer.reward_func_names[self._trainer._correctness_column]
        # This process's key tokens are at hand, and its rollouts come first; later groups may be on another one.
        key_tokens = getattr(self._trainer, "latest_key_tokens", None)
        at_hand = len(rows) if key_tokens is None else len(key_tokens[0])
        scored = [(row[name], i) for i, row in enumerate(rows[:at_hand]) if row[name] is not None]
        groups: dict[int, list[tuple[float, int]]] = {}
        for reward, i in scored:
            groups.setdefault(rows[i]["group"], []).append((reward, i))
        if not groups:
            return
        group = max(groups.values(), key=lambda members: max(members)[0] - min(members)[0])
        prompt = Text(_text(rows[group[0][1]]["prompt"]))
        self._console.print(f"[bold]{self._label}, update {state.global_step}[/]", prompt)
        for reward, i in (max(group, key=lambda m: (m[0], -m[1])), min(group)):
            advantage = rows[i]["advantage"]
            self._console.print(f"  reward {reward:g}, rollout advantage {advantage:+.2f}", highlight=False)
            self._console.print(Text("    ") + self._completion(rows[i], i, key_tokens))

    def _completion(self, row: dict[str, Any], i: int, key_tokens: Any) -> Text:
        if key_tokens is None:
            return Text(_text(row["completion"]))
        ids, values, mask = (part[i].tolist() for part in key_tokens)
        counted = [(token_id, value) for token_id, value, own in zip(ids, values, mask, strict=True) if own][-_TOKENS:]
        pieces = token_texts(self._tokenizer, [token_id for token_id, _ in counted])
        tokens = [(piece, value) for piece, (_, value) in zip(pieces, counted, strict=True)]
        if self._console.is_terminal:
            return Text.assemble(*((token, _style(value)) for token, value in tokens))
        text = Text("".join(token for token, _ in tokens))
        strongest = sorted(dict(tokens).items(), key=lambda item: -abs(item[1]))[:_KEY_TOKENS]
        listed = "  ".join(f"{value:+.2f} {token!r}" for token, value in strongest if value)
        return text.append(f"\n    key tokens: {listed}") if listed else text


def token_texts(tokenizer: Any, token_ids: list[int]) -> list[str]:
    """The text of each token where it stands, white space included; joined they are the text of all."""
    texts = [tokenizer.decode(token_ids[:end]) for end in range(len(token_ids) + 1)]
    return [after[len(before) :] for before, after in pairwise(texts)]


def _style(value: float) -> str:
    """Distinguishable to the colour-blind, and stronger where the value is."""
    if abs(value) < 0.1:
        return ""
    color = "blue" if value > 0 else "dark_orange"
    return f"bold {color}" if abs(value) > 0.5 else color


def _text(content: Any) -> str:
    """A prompt or completion as one text: messages one after the other, the end where it is long."""
    text = content if isinstance(content, str) else "\n".join(str(message.get("content")) for message in content)
    return text if len(text) <= _CHARACTERS else "…" + text[-_CHARACTERS:]
