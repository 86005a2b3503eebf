"""Rows as in samples.jsonl, for tests."""

import numpy as np


def row(task="math500", id="0", sample=0, status="correct", **changes):
    """One graded sample; the answer is 1 if it is correct and 2 if not."""
    extracted = {"correct": "1", "no_answer": None}.get(status, "2")
    return {
        "task": task,
        "id": id,
        "sample": sample,
        "completion": rf"\boxed{{{extracted}}}",
        "length": 100,
        "truncated": False,
        "status": status,
        "extracted": extracted,
        "reason": "",
        "answers": ["1"],
        **changes,
    }


def rows(correct_PS, task="math500", length_PS=None):
    """A row for each entry of a (problems, samples) array of 0 and 1."""
    correct_PS = np.asarray(correct_PS)
    length_PS = np.full(correct_PS.shape, 100) if length_PS is None else np.asarray(length_PS)
    return [
        row(task, str(p), s, "correct" if correct_PS[p, s] else "incorrect", length=int(length_PS[p, s]))
        for p, s in np.ndindex(*correct_PS.shape)
    ]
