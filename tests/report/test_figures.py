"""`ktae plot`: files of every format, the same each time."""

import xml.etree.ElementTree

import pytest
from page_browser import row
from saved import save

from ktae.cli import main

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("kind", ["heatmap", "curves"])
@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files(tmp_path, monkeypatch, kind, suffix, start):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "r.jsonl", [row("g", f"so it is\n{x}", float(x == 42)) for x in (42, 43, 42)])
    save(tmp_path / "metrics.jsonl", [{"algorithm": "grpo", "step": k, "accuracy": k / 50} for k in range(1, 51)])
    arguments = ["."] if kind == "curves" else ["r.jsonl", "--group", "g", "--tokenizer", "words"]
    for i in range(2):
        assert main(["plot", kind, *arguments, "--out", f"{i}.{suffix}"]) == 0
    first, second = ((tmp_path / f"{i}.{suffix}").read_bytes() for i in range(2))
    assert first == second
    assert first.startswith(start)
    if suffix == "svg":
        xml.etree.ElementTree.fromstring(first)
