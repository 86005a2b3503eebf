"""Rebuilds the tables of every run of the credit benchmark here, X.md from X.jsonl.

python experiments/credit/tables.py
"""

import json
from pathlib import Path

from ktae.bench.show import as_markdown

for path in sorted(Path(__file__).parent.glob("*.jsonl")):
    path.with_suffix(".md").write_text(as_markdown([json.loads(line) for line in path.read_text().splitlines()]))
