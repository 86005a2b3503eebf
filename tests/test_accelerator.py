"""benchmarks/accelerator.py on the CPU: it runs, says what it could not do, and fails where a result is off."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"


@pytest.fixture(scope="module")
def accelerator():
    pytest.importorskip("numba")
    spec = importlib.util.spec_from_file_location("accelerator", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["accelerator"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["accelerator"]


def test_it_passes_and_says_what_it_could_not_do(accelerator, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(accelerator, "training", lambda device, updates: [])
    out = tmp_path / "out.json"
    assert accelerator.main(["--device", "cpu", "--quick", "--json", str(out)]) == 0
    parts = {part["name"]: part for part in json.loads(out.read_text())["parts"]}
    assert parts["random groups"]["status"] == "passed"
    assert parts["host waits"]["status"] == "not done"
    assert parts["ms, 16 groups of 16 x 32"]["figures"]["chosen"] == "host"
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out


def test_a_result_that_is_off_fails(accelerator, monkeypatch):
    right = accelerator.by_tensors
    monkeypatch.setattr(accelerator, "by_tensors", lambda *given: right(*given) * (1 + 2e-6) + 2e-6)
    part = accelerator.random_groups(torch.device("cpu"), 20)
    assert part.status == "failed"
    assert min(part.figures.values()) > 1e-6
    monkeypatch.setattr(accelerator, "training", lambda device, updates: [])
    monkeypatch.setattr(accelerator, "random_groups", lambda device, groups: part)
    assert accelerator.main(["--device", "cpu", "--quick"]) == 1
