"""Problems as `ktae data prepare` writes them, in the form verl reads: python to_parquet.py IN.jsonl OUT.parquet"""

import argparse
from pathlib import Path

import pandas as pd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("jsonl", type=Path)
parser.add_argument("parquet", type=Path)
arguments = parser.parse_args()

problems = pd.read_json(arguments.jsonl, lines=True, dtype=False)
rows = pd.DataFrame(
    {
        "data_source": problems["source"],
        "prompt": problems["prompt"],
        "ability": "math",
        "reward_model": [{"style": "rule", "ground_truth": answers} for answers in problems["answers"]],
        "extra_info": [{"id": str(name)} for name in problems["id"]],
    }
)
rows.to_parquet(arguments.parquet)
print(f"{arguments.parquet}: {len(rows)} problems")
