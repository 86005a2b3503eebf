"""Whether the package works on this machine's accelerator, and how fast: CUDA, MPS, XPU or whatever else torch knows.

    python benchmarks/accelerator.py --json benchmarks/accelerator.json
    python benchmarks/accelerator.py --device cpu --quick

Without an accelerator the tensor path, which accelerators take, runs on the CPU. Each part says whether it passed,
failed, was measured or could not be done on this device, and why. The exit status is 1 if one failed.

The reference is the compiled path on the CPU; without Numba it is the tensor path there, and the table says so.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ktae import KTAEConfig, kernels, ktae_advantages

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = (ROOT / "tests" / "golden", ROOT.parent / "shared" / "data" / "golden")
INPUTS = ("token_ids", "mask", "rewards", "group_ids")
RECORDED = {"advantages_exact_fisher": KTAEConfig(), "advantages_released": KTAEConfig.released()}
# The recorded columns are float32 sums in another order.
OF_RECORDED = 1e-5
CONFIGS = {
    "default": KTAEConfig(),
    "released": KTAEConfig.released(),
    "recommended": KTAEConfig.recommended(),
    "centered": replace(KTAEConfig.recommended(), centered=True),
    "excluded": replace(KTAEConfig.recommended(), term_frequency_weight=1.0, exclude_token_ids=(0, 1, 10**12)),
}
VOCABULARY = 151_936
PASSED, FAILED, MEASURED, NOT_DONE = "passed", "failed", "measured", "not done"
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass
class Part:
    """The outcome of one part: a sentence for the table, and its figures."""

    name: str
    status: str
    said: str
    figures: dict = field(default_factory=dict)


def checked(name: str, passed: bool, said: str, **figures) -> Part:
    return Part(name, PASSED if passed else FAILED, said, figures)


def by_tensors(batch: Batch, config: KTAEConfig = KTAEConfig()) -> Tensor:  # noqa: B008 (frozen)
    with mock.patch.object(kernels, "usable", return_value=False):
        return ktae_advantages(*batch, config=config)


def on_host(batch: Batch, config: KTAEConfig = KTAEConfig()) -> Tensor:  # noqa: B008 (frozen)
    """What the package does with tensors of the CPU: the compiled path, where Numba is installed."""
    return ktae_advantages(*(tensor.cpu() for tensor in batch), config=config)


def has_float64(device: torch.device) -> bool:
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def to(device: torch.device, batch: Batch) -> Batch:
    """The batch on the device; rewards in float32 where it has nothing wider."""
    token_ids, mask, rewards, group_ids = batch
    rewards = rewards if has_float64(device) else rewards.float()
    return token_ids.to(device), mask.to(device), rewards.to(device), group_ids.to(device)


def tolerance(device: torch.device) -> float:
    return 1e-6 if has_float64(device) else 1e-5


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of values above 1: the recommended scale is 8, and float32 has 24 bits."""
    one, other = one.double().cpu(), other.double().cpu()
    difference = float(((one - other).abs() / other.abs().clamp(min=1)).max())
    return difference if difference == difference else float("inf")  # NaN is no agreement


# Results


def golden(device: torch.device) -> Part:
    """The authors' recorded batches on the device, against the recordings and the reference."""
    folder = next((folder for folder in GOLDEN if folder.is_dir()), None)
    if folder is None:
        return Part("golden files", NOT_DONE, f"there is none of {', '.join(map(str, GOLDEN))}")
    recorded = reference = 0.0
    files = sorted(folder.glob("*.npz"))
    for path in files:
        with np.load(path) as arrays:
            batch = tuple(torch.from_numpy(arrays[name]) for name in INPUTS)
            # Two processors were recorded, whose float32 rounds differently.
            columns = {name: [torch.from_numpy(arrays[n]) for n in arrays if n.startswith(name)] for name in RECORDED}
        for name, of_processors in columns.items():
            found = by_tensors(to(device, batch), RECORDED[name])
            off = torch.stack([(found.cpu() - column).abs() for column in of_processors]).amin(dim=0)
            recorded = max(recorded, apart(off, torch.zeros_like(off)))
            reference = max(reference, apart(found, on_host(batch, RECORDED[name])))
    passed = recorded <= OF_RECORDED and reference <= tolerance(device)
    said = f"{len(files)} files: {recorded:.1e} from the recordings, {reference:.1e} from the reference"
    return checked("golden files", bool(files) and passed, said, recorded=recorded, reference=reference)


def random_batch(rng: np.random.Generator, groups: int) -> Batch:
    """Groups of unequal sizes in shuffled rows, common and rare ids, holes in the mask, some rollouts unscored."""
    sizes = rng.integers(2, 17, groups)
    rows, columns = int(sizes.sum()), int(rng.integers(1, 65))
    largest = rng.choice([8, 300, VOCABULARY, 2**31 - 2, 2**63 - 2])
    vocabulary = rng.integers(0, largest, 40, endpoint=True)
    token_ids = vocabulary[np.minimum(rng.geometric(0.15, (rows, columns)), 40) - 1]
    rewards = np.where(rng.random(rows) < 0.05, np.nan, rng.choice([-1.0, 0.0, 0.5, 1.0], rows))
    mask = rng.random((rows, columns)) < rng.choice([0.3, 0.9, 1.0])
    group_ids = rng.permutation(np.repeat(np.arange(groups), sizes))
    return torch.from_numpy(token_ids), torch.from_numpy(mask), torch.from_numpy(rewards), torch.from_numpy(group_ids)


def random_groups(device: torch.device, groups: int) -> Part:
    """Random groups with every one of `CONFIGS`, twenty groups a batch."""
    rng = np.random.default_rng(0)
    worst = dict.fromkeys(CONFIGS, 0.0)
    for _ in range(max(groups // 20, 1)):
        batch = random_batch(rng, min(groups, 20))
        for name, config in CONFIGS.items():
            worst[name] = max(worst[name], apart(by_tensors(to(device, batch), config), on_host(batch, config)))
    said = f"{groups} groups: at most {max(worst.values()):.1e} from the reference, {tolerance(device):g} allowed"
    return checked("random groups", max(worst.values()) <= tolerance(device), said, **worst)


# Waiting, memory, time


def large_batch(device: torch.device, groups: int, columns: int, size: int = 16) -> Batch:
    """Skewed ids in int32, lengths drawn, about half the rollouts correct; made on the device."""
    generator = torch.Generator().manual_seed(0)
    rows = groups * size
    torch.manual_seed(0)
    token_ids = (torch.rand(rows, columns, device=device) ** 4 * VOCABULARY).int()
    lengths = torch.randint(columns // 4, columns + 1, (rows,), generator=generator)
    mask = torch.arange(columns, device=device) < lengths.to(device)[:, None]
    rewards = torch.randint(0, 2, (rows,), generator=generator).float()
    return token_ids, mask, rewards.to(device), (torch.arange(rows) // size).to(device)


def waits(device: torch.device, columns: int) -> Part:
    """How often the host waits for the device: as often for many groups as for few, so never while it counts them."""
    name = "host waits"
    if device.type != "cuda":
        return Part(name, NOT_DONE, f"torch reports them on CUDA only, not on {device.type}")
    found = {}
    for config_name, config in CONFIGS.items():
        for groups in (4, 256):
            batch = large_batch(device, groups, columns)
            by_tensors(batch, config)  # the first call may load kernels and fill caches
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    by_tensors(batch, config)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            found[f"{config_name}, {groups} groups"] = sum("synchroniz" in str(one.message) for one in caught)
    passed = all(found[f"{one}, 4 groups"] == found[f"{one}, 256 groups"] for one in CONFIGS)
    said = f"{min(found.values())} to {max(found.values())} a call, {'the same' if passed else 'not the same'} for "
    return checked(name, passed, said + "4 and 256 groups", **found)


def memory(device: torch.device, groups: int, columns: int) -> Part:
    """Peak memory that tensors take beyond the batch."""
    name = f"peak memory, {groups} groups"
    if device.type not in ("cuda", "xpu"):
        return Part(name, NOT_DONE, f"torch keeps no peak on {device.type}; benchmarks/speed.py measures the CPU's")
    module = getattr(torch, device.type)
    figures = {}
    batch = large_batch(device, groups, columns)
    size = sum(tensor.nbytes for tensor in batch)
    for config_name in ("default", "recommended"):
        by_tensors(batch, CONFIGS[config_name])
        module.reset_peak_memory_stats()
        before = module.memory_allocated()
        by_tensors(batch, CONFIGS[config_name])
        figures[config_name] = (module.max_memory_allocated() - before) / size
    said = ", ".join(f"{config_name} {ratio:.2f}" for config_name, ratio in figures.items())
    return Part(name, MEASURED, f"{said} times the batch of {size / 2**20:.0f} MiB", figures)


def milliseconds(device: torch.device, groups: int, columns: int, repeats: int) -> Part:
    """The tensor path beside one gather, and beside the reference with the copies that it needs; in turns."""
    batch = large_batch(device, groups, columns)
    table = torch.rand(VOCABULARY, device=device)
    contenders: dict[str, Callable[[], Tensor]] = {"gather": lambda: table[batch[0]]}
    for name in ("default", "recommended"):
        contenders[f"tensors, {name}"] = lambda config=CONFIGS[name]: by_tensors(batch, config)
        contenders[f"host, {name}"] = lambda config=CONFIGS[name]: on_host(batch, config).to(device)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, function in contenders.items():
            begun = time.perf_counter()
            function()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            if turn:  # the first compiles
                times[name].append(1000 * (time.perf_counter() - begun))
    median = {name: statistics.median(took) for name, took in times.items()}
    chosen = "host" if kernels.usable(batch[0]) else "tensors"
    other = "tensors" if chosen == "host" else "host"
    slower = [name for name in ("default", "recommended") if median[f"{chosen}, {name}"] > median[f"{other}, {name}"]]
    said = ", ".join(f"{name} {took:.2f}" for name, took in median.items())
    said += f"; the package takes {chosen}" + (f", slower with {' and '.join(slower)}" if slower else ", the faster")
    return Part(f"ms, {groups} groups of 16 x {columns}", MEASURED, said, {"times": times, "chosen": chosen})


# Training


def training(device: torch.device, updates: int) -> list[Part]:
    """TRL trains the quickstart's model without and with key tokens."""
    missing = [module for module in ("trl", "datasets") if importlib.util.find_spec(module) is None]
    if missing:
        return [Part("TRL", NOT_DONE, f"{', '.join(missing)} is not installed (the extra train)")]
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from ktae.chain.problems import exact_match, train_problems
    from ktae.integrations.trl import KTAETrainer
    from ktae.models.load import Model, load_model

    parts = []
    for name, trainer_class, options in (
        ("without key tokens", GRPOTrainer, {}),
        ("with key tokens", KTAETrainer, {"ktae": KTAEConfig.recommended()}),
    ):
        model, tokenizer = load_model(Model("python:ktae/chain/weights"))
        with tempfile.TemporaryDirectory() as folder:
            size = {"per_device_train_batch_size": 32, "num_generations": 8, "steps_per_generation": 4}
            quiet = {"report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
            small = {"max_completion_length": 64, "max_steps": updates, "learning_rate": 5e-4, "seed": 0}
            where = {"output_dir": folder, "use_cpu": device.type == "cpu"}
            config = GRPOConfig(**where, **size, **small, **quiet, bf16=False, gradient_checkpointing=False)
            rows = Dataset.from_list(train_problems(16 * updates, seed=0))
            trainer = trainer_class(
                model, exact_match, args=config, train_dataset=rows, processing_class=tokenizer, **options
            )
            trainer.remove_callback(PrinterCallback)
            begun = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - begun
        steps = [logs for logs in trainer.state.log_history if "loss" in logs]
        finite = all(np.isfinite(float(logs[key])) for logs in steps for key in ("loss", "grad_norm"))
        figures = {"seconds": seconds, "rewards": [logs["reward"] for logs in steps if "reward" in logs]}
        said = f"{len(steps)} updates in {seconds:.1f} s on {trainer.accelerator.device}"
        passed = len(steps) == updates and finite and trainer.accelerator.device.type == device.type
        if options:
            figures["ktae seconds"] = [logs["ktae/seconds"] for logs in steps if "ktae/seconds" in logs]
            passed &= bool(figures["ktae seconds"])
            said += f", of which {sum(figures['ktae seconds']):.2f} s for key-token values"
        parts.append(checked(f"TRL {name}", passed, said, **figures))
    return parts


def name_of(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name()
    return f"{device.type}, {platform.processor() or platform.machine()}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cuda, mps, xpu, cpu (default: the accelerator that torch finds, else cpu)")
    parser.add_argument("--quick", action="store_true", help="few and small: whether it runs, not how fast")
    parser.add_argument("--json", type=Path, help="where to write the figures; the table goes beside it as .md")
    arguments = parser.parse_args(argv)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = torch.device(arguments.device or found or "cpu")
    quick = arguments.quick
    groups, columns, repeats, updates = ((4, 16), 32, 1, 4) if quick else ((64, 1024), 1024, 7, 20)
    parts = [
        golden(device),
        random_groups(device, 40 if quick else 2000),
        waits(device, columns),
        *(memory(device, n, columns) for n in groups),
        *(milliseconds(device, n, columns, repeats) for n in groups),
        *training(device, updates),
    ]
    numba = importlib.util.find_spec("numba") is not None
    reference = "the compiled path" if numba else "the tensor path on the CPU, since Numba is not installed"
    about = f"{name_of(device)}; torch {torch.__version__}; float64: {'yes' if has_float64(device) else 'no'}"
    lines = [
        f"{about}; the reference is {reference}",
        "",
        "| part | | |",
        "|---|---|---|",
        *(f"| {part.name} | {part.status} | {part.said} |" for part in parts),
    ]
    print("\n".join(lines))
    if arguments.json:
        result = {"device": about, "reference": reference, "quick": quick, "parts": [asdict(part) for part in parts]}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        arguments.json.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return int(any(part.status == FAILED for part in parts))


if __name__ == "__main__":
    sys.exit(main())
