"""`ktae eval MODEL`: a model's answers to the benchmarks, graded and counted.

ktae eval MODEL --tasks aime24,aime25 -n 32 --temperature 0.6
ktae eval MODEL --tasks problems.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktae.data.sources import SYSTEM
from ktae.evaluation.tasks import load_problems, resolve_tasks
from ktae.extras import require
from ktae.files import json_lines
from ktae.seeds import derived_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="a Hugging Face id, a folder, a .gguf file or python:PACKAGE/PATH")
    add("--tasks", default="paper", help="tasks, suites, files, separated by commas (default: %(default)s)")
    add("--out", type=Path, help="the folder for the results (default: evals/MODEL)")
    add("--data-dir", type=Path, metavar="DIR", help="read DIR/NAME.jsonl instead of the hub")
    add("-n", type=int, default=1, dest="samples", help="completions a problem (default: %(default)s)")
    add("--temperature", type=float, default=0.0, help="0 for greedy (default: %(default)s)")
    add("--top-p", type=float, default=1.0, help="(default: %(default)s)")
    add("--max-tokens", type=int, default=3072, help="generated tokens at most (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="the first N problems of each task")
    add("--system", default=SYSTEM, metavar="TEXT", help="system message, '' for none (default: %(default)s)")
    dtypes, backends = ("auto", "float32", "bfloat16", "float16"), ("auto", "vllm", "transformers")
    add("--dtype", choices=dtypes, default="auto", help="precision of the weights (default: %(default)s)")
    add("--backend", choices=backends, default="auto", help="(default: %(default)s)")
    together = "tokens in memory together (default: 131072 on a GPU, else 16384)"
    add("--batch-tokens", type=int, metavar="N", help=together)


def run(arguments: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Does all that a mistake in the arguments can break, loading the model included, and writes nothing.

    Returns the evaluation, to be called. It returns what results.json holds, and writes to the folder:
    generations.jsonl (completions as they come; it goes in the end), samples.jsonl (with verdicts), results.json and
    summary.md. A seed of its own, made of the command's, the problem and the number of the sample, goes with every
    completion. Raises a ValueError if an argument or a task is wrong, an OSError if the model or a task is not there.
    """
    from ktae.models.generate import Sampling, choose_backend
    from ktae.models.load import check_available

    samples, model, limit = arguments.samples, arguments.model, arguments.limit
    for name, value in (("-n", samples), ("--limit", limit), ("--batch-tokens", arguments.batch_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_tokens, arguments.seed)
    if samples > 1 and sampling.temperature == 0:
        raise ValueError(f"-n {samples} needs a --temperature above 0: greedy samples are all the same")
    out = arguments.out or Path("evals") / model.strip("/").replace("/", "_").replace(":", "_")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; give another --out")
    backend = choose_backend(arguments.backend, model)
    tasks = resolve_tasks(list(filter(None, arguments.tasks.split(","))))
    check_available(model)
    rows: list[dict[str, Any]] = [
        {"task": task.name, "id": problem.id, "sample": number, "prompt": problem.text, "answers": problem.answers}
        for task in tasks
        for problem in load_problems(task, arguments.data_dir)[:limit]
        for number in range(samples)
    ]
    engine = _engine(model, arguments.dtype, backend)
    names = ("model", "tasks", "data_dir", "samples", "limit", "system", "dtype", "batch_tokens")
    about = {
        **{name: getattr(arguments, name) for name in names},
        "sampling": dataclasses.asdict(sampling),
        "backend": backend,
        "generation": {"end_ids": engine.end_ids, "not_used": engine.not_used},
    }

    def evaluate() -> dict[str, Any]:
        from rich import progress

        from ktae.evaluation.grade import grade_rows
        from ktae.evaluation.results import write_results
        from ktae.models.generate import generate, render

        if engine.not_used:
            said = ", ".join(f"{name} {value}" for name, value in engine.not_used.items())
            print(f"Not used of the checkpoint's generation settings: {said}")
        texts = [render(engine.tokenizer, row["prompt"], arguments.system) for row in rows]
        seeds = [derived_seed(sampling.seed, row["task"], row["id"], row["sample"]) for row in rows]
        how = {"special_tokens": engine.tokenizer.chat_template is None, "budget": arguments.batch_tokens}
        with progress.Progress(*progress.Progress.get_default_columns(), progress.MofNCompleteColumn()) as shown:
            bar = shown.add_task(f"answers ({engine.name})", total=len(rows))
            for part in generate(engine, texts, sampling, seeds, **how):
                for index, answer in part.items():
                    rows[index] |= {"completion": answer.text, "length": answer.length, "truncated": answer.truncated}
                json_lines.append(out / "generations.jsonl", [rows[index] for index in part])
                shown.advance(bar, len(part))
        results = write_results(out, grade_rows(rows), about)
        (out / "generations.jsonl").unlink()
        print(f"Samples with verdicts and results are in {out}/")
        return results

    return evaluate


def _engine(model: str, dtype: Any, backend: str) -> Any:
    import torch

    from ktae.models.generate import TransformersBackend, VllmBackend
    from ktae.models.load import Model, load_model, load_tokenizer, resolve

    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if backend == "vllm":
        return VllmBackend(resolve(model), load_tokenizer(model), dtype)
    loaded, tokenizer = load_model(Model(model, dtype))
    return TransformersBackend(loaded.to(torch.accelerator.current_accelerator() or "cpu"), tokenizer)
