"""Rebuilds the tables of every run of the credit benchmark here, X.md from X.jsonl.

python experiments/credit/tables.py
"""

import json
from pathlib import Path

from ktae.bench.show import as_markdown

HERE = Path(__file__).parent


def main() -> None:
    for path in sorted(HERE.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.with_suffix(".md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
