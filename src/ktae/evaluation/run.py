"""`ktae eval MODEL --tasks paper`: a model's answers to the benchmarks, graded and counted."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ktae.data.sources import Problem
from ktae.evaluation.samples import grade_rows, to_rows
from ktae.evaluation.tasks import Task, load_task, resolve_tasks
from ktae.extras import require
from ktae.files import json_lines
from ktae.models.generate import (
    Completion,
    Sampling,
    TransformersBackend,
    VllmBackend,
    choose_backend,
    generate,
    render,
)
from ktae.models.load import Model, load_model, resolve

GENERATIONS = "generations.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate, and how.

    Attributes:
        model: as in a recipe: a Hugging Face id, a folder, a `.gguf` file or `python:PACKAGE/PATH`.
        tasks: names of tasks or suites, or `.jsonl` files with `problem` and `answers`.
        out: the folder for the results.
        data_dir: read `NAME.jsonl` from here instead of the hub.
        samples: completions a problem.
        sampling: temperature, top_p, max_tokens and seed.
        limit: only the first so many problems of each task; None takes all.
        system: system message instead of the tasks' own; empty for none.
        dtype: precision of the weights.
        backend: see `choose_backend`.
        batch_tokens: tokens that are in memory together; None: 131072 on a GPU, 16384 on a CPU. With a temperature
            the draws depend on it.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    data_dir: Path | None = None
    samples: int = 1
    sampling: Sampling = Sampling()  # noqa: RUF009 (frozen)
    limit: int | None = None
    system: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    backend: Literal["auto", "vllm", "transformers"] = "auto"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("-n", self.samples), ("--limit", self.limit), ("--batch-tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(f"-n {self.samples} needs a --temperature above 0: greedy samples are all the same")


def evaluate(settings: Evaluation) -> dict[str, Any]:
    """Generates, grades, counts; goes on with what is in `settings.out` if it was made with the same settings.

    Writes to `settings.out`: about.json (the settings), generations.jsonl (completions as they come), samples.jsonl
    (with verdicts), results.json, summary.md and pictures.

    Returns:
        What results.json holds.

    Raises:
        ValueError: a setting or a task is wrong, or the folder holds other settings' results.
        FileNotFoundError, OSError: the model or a task cannot be found.
    """
    return prepare(settings)()


def prepare(settings: Evaluation) -> Callable[[], dict[str, Any]]:
    """Checks everything that can be checked before the model is loaded, and opens the folder.

    Argument and errors are those of `evaluate`. Returns the rest of the evaluation.
    """
    backend = choose_backend(settings.backend)
    resolve(settings.model)
    tasks = [load_task(task, settings.data_dir) for task in resolve_tasks(list(settings.tasks))]
    return functools.partial(_evaluate, settings, backend, tasks, _open_folder(settings, backend))


def _evaluate(
    settings: Evaluation, backend: str, tasks: list[tuple[Task, list[Problem]]], about: dict[str, Any]
) -> dict[str, Any]:
    from rich.console import Console

    from ktae.evaluation.plots import plot_accuracy, plot_length
    from ktae.evaluation.results import print_table, write_results

    console = Console()
    items = [
        (task, problem, sample)
        for task, problems in tasks
        for problem in problems[: settings.limit]
        for sample in range(settings.samples)
    ]
    completions = _completions(settings, backend, items, console)
    rows, seconds = grade_rows(to_rows(items, completions))
    console.print(f"graded {len(rows)} answers in {sum(seconds.values()):.0f} s")
    json_lines.write(settings.out / "samples.jsonl", rows)
    defects = {
        task.name: sum(map(task.is_defective, problems[: settings.limit]))
        for task, problems in tasks
        if task.is_defective
    }
    results = write_results(settings.out, rows, {**about, "known_defects": defects})
    print_table(results, console)
    plot_accuracy({settings.model: results}, settings.out / "accuracy.png")
    plot_length({settings.model: results}, settings.out / "length.png")
    console.print(f"Samples with verdicts, results and pictures are in {settings.out}/")
    return results


def _open_folder(settings: Evaluation, backend: str) -> dict[str, Any]:
    about = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    del about["out"]
    about["backend"] = backend
    path = settings.out / "about.json"
    if path.exists():
        if (found := json.loads(path.read_text())) != about:
            changed = sorted(key for key in {*about, *found} if about.get(key) != found.get(key))
            raise ValueError(f"{settings.out} holds an evaluation with other settings ({', '.join(changed)})")
    elif settings.out.exists() and any(settings.out.iterdir()):
        raise ValueError(f"{settings.out} is not empty and holds no evaluation; give another --out")
    settings.out.mkdir(parents=True, exist_ok=True)
    unfinished = settings.out / "about.json.tmp"
    unfinished.write_text(json.dumps(about, indent=1) + "\n")
    unfinished.replace(path)
    return about


def _completions(
    settings: Evaluation, backend: str, items: list[tuple[Task, Problem, int]], console: Any
) -> list[Completion]:
    """A completion of every item: those that an interrupted evaluation left, and the rest."""
    path = settings.out / GENERATIONS
    index_of = {(task.name, problem.id, sample): i for i, (task, problem, sample) in enumerate(items)}
    found: dict[int, Completion] = {}
    for row in (earlier := json_lines.read(path)):
        key = (row.pop("task"), row.pop("id"), row.pop("sample"))
        found[index_of[key]] = Completion(**row)
    if len(found) < len(items):
        if earlier:
            console.print(f"{len(found)} of {len(items)} completions are there already")
            json_lines.write(path, [_row(items[i], completion) for i, completion in found.items()])  # no half line
        for part in _generate(settings, backend, items, frozenset(found), console):
            found |= part
            json_lines.append(path, [_row(items[i], completion) for i, completion in part.items()])
    return [found[i] for i in range(len(items))]


def _row(item: tuple[Task, Problem, int], completion: Completion) -> dict[str, Any]:
    task, problem, sample = item
    return {"task": task.name, "id": problem.id, "sample": sample, **dataclasses.asdict(completion)}


def _generate(
    settings: Evaluation, backend: str, items: list[tuple[Task, Problem, int]], done: frozenset[int], console: Any
) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    transformers_logging = require("transformers", extra="train").utils.logging
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    if backend == "vllm":
        tokenizer = require("transformers", extra="train").AutoTokenizer.from_pretrained(resolve(settings.model))
        engine: Any = VllmBackend(resolve(settings.model), tokenizer, settings.dtype)
    else:
        model, tokenizer = load_model(Model(settings.model, settings.dtype))
        engine = TransformersBackend(model.to(accelerator), tokenizer)
    texts = [
        render(tokenizer, problem.text, task.system if settings.system is None else settings.system)
        for task, problem, _ in items
    ]
    budget = settings.batch_tokens or (16384 if cast(torch.device, accelerator).type == "cpu" else 131072)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[length]}"))
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as progress:
        bar = progress.add_task(f"answers ({engine.name})", total=len(items), completed=len(done), length="")
        tokens = number = 0
        for part in generate(engine, texts, settings.sampling, budget=budget, done=done):
            tokens, number = tokens + sum(c.length for c in part.values()), number + len(part)
            progress.update(bar, advance=len(part), length=f"{tokens / number:.0f} tokens each")
            yield part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser; `run` takes what it makes of them."""
    add = parser.add_argument
    add("model", help="a Hugging Face id, a folder, a .gguf file or python:PACKAGE/PATH")
    add(
        "--tasks", default="paper", help="names separated by commas: tasks, suites, .jsonl files (default: %(default)s)"
    )
    add("--out", type=Path, help="the folder for the results (default: evals/MODEL)")
    add("--data-dir", type=Path, metavar="DIR", help="read DIR/NAME.jsonl instead of the hub")
    add("-n", type=int, default=1, dest="samples", help="completions a problem (default: %(default)s)")
    add("--temperature", type=float, default=0.0, help="0 for greedy (default: %(default)s)")
    add("--top-p", type=float, default=1.0, help="(default: %(default)s)")
    add("--max-tokens", type=int, default=3072, help="generated tokens at most (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="the first N problems of each task")
    add("--system", metavar="TEXT", help="system message instead of the tasks' own, '' for none")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="(default: %(default)s)")
    add("--backend", choices=("auto", "vllm", "transformers"), default="auto", help="(default: %(default)s)")
    add("--batch-tokens", type=int, metavar="N", help="tokens in memory together")


def run(arguments: argparse.Namespace) -> Any:
    """Checks the arguments; returns the evaluation, to be called."""
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_tokens, arguments.seed)
    names = [field.name for field in dataclasses.fields(Evaluation) if field.name not in ("sampling", "tasks", "out")]
    settings = Evaluation(
        tasks=tuple(filter(None, arguments.tasks.split(","))),
        out=arguments.out or Path("evals") / arguments.model.strip("/").replace("/", "_").replace(":", "_"),
        sampling=sampling,
        **{name: getattr(arguments, name) for name in names},
    )
    return prepare(settings)
