"""`ktae eval MODEL --tasks paper`: a model's answers to the benchmarks, graded and counted."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ktae.data.sources import SYSTEM
from ktae.evaluation.tasks import Task, load_problems, resolve_tasks
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.locks import locked, unfinished
from ktae.seeds import derived_seed

if TYPE_CHECKING:
    from ktae.data.sources import Problem
    from ktae.models.generate import Completion, Sampling

    Item = tuple[Task, Problem, int]  # the last is the number among the problem's samples

GENERATIONS = "generations.jsonl"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Backend = Literal["auto", "vllm", "transformers"]
# A result, not a setting: an evaluation that goes on need not agree in it.
_GENERATION = "generation"


@dataclass(frozen=True)
class EvalSettings:
    """What to evaluate, and how: the options that `add_arguments` describes.

    With transformers and a temperature the draws depend on `batch_tokens`, whose None is 131072 on a GPU and 16384 on a
    CPU.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    sampling: Sampling
    data_dir: Path | None = None
    samples: int = 1
    limit: int | None = None
    system: str = SYSTEM
    dtype: Dtype = "auto"
    backend: Backend = "auto"
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("-n", self.samples), ("--limit", self.limit), ("--batch-tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(f"-n {self.samples} needs a --temperature above 0: greedy samples are all the same")


def evaluate(settings: EvalSettings) -> dict[str, Any]:
    """Generates, grades, counts; goes on with what is in `settings.out` if it was made with the same settings.

    Writes to `settings.out`: about.json (the settings), generations.jsonl (completions as they come), samples.jsonl
    (with verdicts), results.json and summary.md. A seed of its own, made of the settings' seed, the problem and the
    number of the sample, goes with every completion.

    Returns:
        What results.json holds.

    Raises:
        ValueError: a setting or a task is wrong, or the folder holds other settings' results.
        OSError: the model or a task cannot be found.
    """
    return check(settings)()


def check(settings: EvalSettings) -> Callable[[], dict[str, Any]]:
    """Does all that a mistake in the settings can break, loading the model included, and writes nothing.

    Argument and errors are those of `evaluate`. Returns the rest of the evaluation.
    """
    from ktae.models.generate import choose_backend
    from ktae.models.load import check_available

    backend = choose_backend(settings.backend, settings.model)
    named = resolve_tasks(list(settings.tasks))
    check_available(settings.model)
    tasks = [(task, load_problems(task, settings.data_dir)[: settings.limit]) for task in named]
    items = [(task, problem, n) for task, problems in tasks for problem in problems for n in range(settings.samples)]
    about = _about(settings, backend)
    found = _found(settings.out / GENERATIONS, items)
    engine = None
    if len(found) < len(items):
        engine = _engine(settings, backend)
        about[_GENERATION] = {"end_ids": engine.end_ids, "not_used": engine.not_used}
    about["known_defects"] = {task.name: task.known_defects for task in named if task.known_defects}

    def rest() -> dict[str, Any]:
        settings.out.mkdir(parents=True, exist_ok=True)
        with locked(settings.out):
            return _evaluate(settings, about, items, found, engine)

    return rest


def _evaluate(
    settings: EvalSettings, about: dict[str, Any], items: list[Item], found: dict[int, Completion], engine: Any
) -> dict[str, Any]:
    from ktae.evaluation.grade import grade_rows
    from ktae.evaluation.results import write_results

    out = settings.out
    with unfinished(out / "about.json") as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
    if not_used := about.get(_GENERATION, {}).get("not_used"):
        said = ", ".join(f"{name} {value}" for name, value in not_used.items())
        print(f"Not used of the checkpoint's generation settings: {said}")
    if found and engine:
        print(f"{len(found)} of {len(items)} completions are there already")
    # Also of what was there: its last line may have been cut off.
    json_lines.write(out / GENERATIONS, [_row(items[i], completion) for i, completion in found.items()])
    for part in _generate(settings, engine, items, found) if engine else ():
        found |= part
        json_lines.append(out / GENERATIONS, [_row(items[i], completion) for i, completion in part.items()])
    rows = grade_rows([{**_row(item, found[i]), "answers": list(item[1].answers)} for i, item in enumerate(items)])
    json_lines.write(out / "samples.jsonl", rows)
    results = write_results(out, rows, about)
    print(f"Samples with verdicts and results are in {out}/")
    return results


def _about(settings: EvalSettings, backend: str) -> dict[str, Any]:
    """The settings as JSON knows them, with what an evaluation in the folder found of the checkpoint."""
    about = json.loads(json.dumps(dataclasses.asdict(settings), default=str)) | {"backend": backend}
    del about["out"]
    path = settings.out / "about.json"
    if path.exists():
        there = json.loads(path.read_text())
        generation = there.pop(_GENERATION, None)
        there.pop("known_defects", None)
        if there != about:
            changed = sorted(key for key in {*about, *there} if about.get(key) != there.get(key))
            raise ValueError(f"{settings.out} holds an evaluation with other settings ({', '.join(changed)})")
        return about | ({_GENERATION: generation} if generation else {})
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise ValueError(f"{settings.out} is not an empty folder and holds no evaluation; give another --out")
    return about


def _found(path: Path, items: list[Item]) -> dict[int, Completion]:
    """What an interrupted evaluation left, by the item's index."""
    from ktae.models.generate import Completion

    index_of = {(task.name, problem.id, sample): i for i, (task, problem, sample) in enumerate(items)}
    found: dict[int, Completion] = {}
    for number, row in enumerate(json_lines.read(path), start=1):
        try:
            index = index_of[row["task"], row["id"], row["sample"]]
            found[index] = Completion(row["completion"], row["length"], row["truncated"])
        except (KeyError, TypeError):
            raise ValueError(f"{path}, line {number}, is no completion of these tasks; remove the folder") from None
    return found


def _row(item: Item, completion: Completion) -> dict[str, Any]:
    task, problem, sample = item
    told = {"completion": completion.text, "length": completion.length, "truncated": completion.truncated}
    return {"task": task.name, "id": problem.id, "sample": sample, **told}


def _engine(settings: EvalSettings, backend: str) -> Any:
    import torch

    from ktae.models.generate import TransformersBackend, VllmBackend
    from ktae.models.load import Model, load_model, load_tokenizer, resolve

    logging = require("transformers", extra="train").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if backend == "vllm":
        return VllmBackend(resolve(settings.model), load_tokenizer(settings.model), settings.dtype)
    model, tokenizer = load_model(Model(settings.model, settings.dtype))
    return TransformersBackend(model.to(torch.accelerator.current_accelerator() or "cpu"), tokenizer)


def _generate(
    settings: EvalSettings, engine: Any, items: list[Item], found: dict[int, Completion]
) -> Iterator[dict[int, Completion]]:
    import torch
    from rich import progress

    from ktae.models.generate import generate, render

    texts = [render(engine.tokenizer, problem.text, settings.system) for _, problem, _ in items]
    seeds = [derived_seed(settings.sampling.seed, task.name, problem.id, sample) for task, problem, sample in items]
    budget = settings.batch_tokens or (131072 if torch.accelerator.is_available() else 16384)
    with progress.Progress(*progress.Progress.get_default_columns(), progress.MofNCompleteColumn()) as shown:
        bar = shown.add_task(f"answers ({engine.name})", total=len(items), completed=len(found))
        for part in generate(engine, texts, settings.sampling, seeds, budget=budget, done=frozenset(found)):
            shown.advance(bar, len(part))
            yield part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser; `run` takes what it makes of them."""
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
    add("--dtype", choices=get_args(Dtype), default="auto", help="precision of the weights (default: %(default)s)")
    add("--backend", choices=get_args(Backend), default="auto", help="(default: %(default)s)")
    together = "tokens in memory together (default: 131072 on a GPU, else 16384)"
    add("--batch-tokens", type=int, metavar="N", help=together)


def run(arguments: argparse.Namespace) -> Callable[[], Any]:
    """Checks the arguments and loads the model; returns the evaluation, to be called."""
    from ktae.models.generate import Sampling

    def given(settings: type) -> dict[str, Any]:
        names = (field.name for field in dataclasses.fields(settings))
        return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}

    out = arguments.out or Path("evals") / arguments.model.strip("/").replace("/", "_").replace(":", "_")
    tasks = tuple(filter(None, arguments.tasks.split(",")))
    sampling = Sampling(**given(Sampling))
    return check(EvalSettings(**given(EvalSettings) | {"tasks": tasks, "out": out, "sampling": sampling}))
