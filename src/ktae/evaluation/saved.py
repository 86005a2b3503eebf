"""Outputs saved by other programs, as rows that can be graded: which format a row has, and where its fields are."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from pathlib import Path
from typing import Any

from ktae.data.sources import answers_of, references_in
from ktae.files.columns import columns_of, label, messages_of, value_of
from ktae.files.rows import Malformed, Row, read_rows, stem, without_malformed

# An output to grade: task, id, sample, completion, answers, length and truncated (None if unknown), stored (None or the
# verdict that came with it).
Output = dict[str, Any]
# The columns that tell a format, and where its task (-: the file's name says it), problem, samples, accepted answers
# and verdict are; of a|b the first that is not null. Of the authors' two formats the first says which problem it is by
# its prompt only; in the second a second reader's verdict counts if there is one.
_FORMATS = {
    "ktae": ("answers completion id task", "task id completion answers status"),
    "paper": ("gt model_output prompt task_name", "task_name prompt model_output gt reward"),
    "paper, numbered": ("gt i output task", "task i output gt judged|reward_paper"),
    "lm-eval": ("doc_id resps target", "- doc_id resps target exact_match|acc|math_verify"),
    "lighteval": ("doc model_response", "doc.task_name doc.id|doc.query model_response.text doc.choices metric"),
}
_KNOWN = "; ".join(f"{name} has {', '.join(needed.split())}" for name, (needed, _) in _FORMATS.items())
_OURS = ("sample", "prompt", "length", "truncated")


def read_saved(path: Path) -> tuple[list[Output], list[Malformed]]:
    """Reads saved outputs.

    A row that holds several samples gives several outputs; without a verdict each, they have none. Rows of lm-eval that
    differ in the filter only are one output, whose stored verdict is the best of theirs.

    The path is that of `ktae.files.rows.read_rows`; rows are of one of `_FORMATS`, or rollouts with a column of
    references. Returns the outputs in the file's order, and the rows that are left out, which stderr names: those of no
    known format or without an accepted answer. Raises the errors of `read_rows`, and a ValueError if all rows are such.
    """
    malformed: list[Malformed] = []
    outputs: dict[tuple[str, str, int], Output] = {}
    seen: Counter[tuple[str, str, str]] = Counter()

    def kept(row: Row | Malformed) -> Row | Malformed:
        if isinstance(row, Malformed):
            return row
        try:
            for output in _outputs(row.data, stem(row.path)):
                by_filter = (output["task"], output["id"], str(row.data.get("filter")))
                output.setdefault("sample", seen[by_filter])
                seen[by_filter] += 1
                key = (output["task"], output["id"], output["sample"])
                first = outputs.setdefault(key, output)
                if first is not output and "filter" not in row.data:
                    raise ValueError(f"sample {key[2]} of {key[0]}, {key[1]:.80} was there before")
                if first is not output and output["stored"] is not None:
                    first["stored"] = output["stored"] or bool(first["stored"])
            return row
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            return Malformed(row.path, row.row, f"{type(error).__name__} {error}")

    rows = map(kept, read_rows(path, by_sample=True))
    deque(without_malformed(rows, path, strict=False, found=malformed), maxlen=0)  # reads all
    return list(outputs.values()), malformed


def _outputs(row: dict[str, Any], file: str) -> list[Output]:
    name = next((name for name, (needed, _) in _FORMATS.items() if row.keys() >= {*needed.split()}), "rollouts")
    task, id, samples, answers, stored = _rollout(row) if name == "rollouts" else _fields(row, name)
    task = str(task or re.sub(r"^(samples|details)_|_20\d\d(-.*)?$", "", file))
    accepted, texts = answers_of(answers), _texts(samples)
    if not accepted:
        raise ValueError("there is no accepted answer")
    if id is None or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"expected a text and the problem's id, got {samples!r:.80} and {id!r:.80}")
    # A number above 0, or true, is a right answer; null and NaN are unknown.
    verdict = math.nan if stored is None else float(stored)
    right = None if math.isnan(verdict) or len(texts) > 1 else verdict > 0
    output = {"task": task, "id": str(id), "answers": accepted, "stored": right, "length": None, "truncated": None}
    output |= {column: row[column] for column in _OURS if name == "ktae" and column in row}
    return [{**output, "completion": text} for text in texts]


def _fields(row: dict[str, Any], name: str) -> tuple[Any, Any, Any, Any, Any]:
    """The five fields of a row of one of `_FORMATS`."""
    task, id, samples, answers, stored = (
        next((value for at in names.split("|") if (value := value_of(row, at)) is not None), None)
        for names in _FORMATS[name][1].split()
    )
    if name == "ktae" and stored is not None:
        stored = stored == "correct"
    elif name == "lighteval":
        gold = row["doc"]["gold_index"]
        answers = [row["doc"]["choices"][index] for index in (gold if isinstance(gold, list) else [gold])]
        metrics = [value for value in (stored or {}).values() if isinstance(value, int | float)]
        stored = metrics[0] if len(metrics) == 1 else None
    return task, id, samples, answers, stored


def _rollout(row: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
    """The five fields of a row of no format, if it is a rollout with references."""
    references = references_in(row)
    if not references:
        rollouts = "rollouts have a completion and an answer or ground_truth"
        raise ValueError(f"of no known format, with the columns {', '.join(sorted(row))}: {_KNOWN}; {rollouts}")
    columns = columns_of({"reward": None, **row}, words=True)
    group = "/".join(label(value_of(row, name), "group") for name in columns.group)
    parts = messages_of(row[str(columns.text)], str(columns.text))
    completion = "".join(text for text, is_policys in parts if is_policys)
    reward = value_of(row, columns.reward)
    stored = reward if isinstance(reward, int | float) else None
    return row.get("data_source") or row.get("task"), group, completion, references, stored


def _texts(values: Any) -> list[Any]:
    """Samples, however deep they lie in lists."""
    if not isinstance(values, list):
        return [values]
    if not values:
        raise ValueError("there is no sample")
    return [text for value in values for text in _texts(value)]
