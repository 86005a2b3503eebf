"""Token advantages with Ray Data, for rollouts that one machine cannot hold.

    rollouts = ray.data.read_parquet("s3://bucket/rollouts")
    columns = Columns(group=("uid",), reward="reward", tokens="token_ids")
    score(rollouts, columns).write_parquet("s3://bucket/scores")

Ray brings the rows of a group together (`groupby().map_groups()`), whatever blocks they lie in, and a worker scores one
group at a time. No group's values depend on another's, so the results are those of `ktae score`.
"""

from __future__ import annotations

from typing import Any

from ktae import checks
from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files.columns import ROW, Columns, check_free, parse_row
from ktae.files.rows import plain_rows
from ktae.files.tokens import load_tokenizer
from ktae.report.outputs import with_scores
from ktae.report.scoring import score as score_groups


def score(
    dataset: Any,
    columns: Columns,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    tokenizer: str | None = None,
) -> Any:
    """Adds what `ktae score` adds, but for `rollout_row`: a distributed data set has no row numbers.

    Args:
        dataset: a ray.data.Dataset, a rollout a row; token ids as lists, as Parquet files have them.
        columns: which column is what. Those in `columns.group` must hold numbers or texts.
        config: the estimator's settings.
        tokenizer: `words`, or the name or path of a tokenizer that every worker can load; needed if there are no token
            ids, and otherwise for `token_texts`.

    Returns:
        A ray.data.Dataset, computed when it is used; groups in no particular order.

    Raises:
        TypeError: `config` is no KTAEConfig.
        ValueError: a column is not there or has a name that is to be added. While it is computed: a row is malformed.
        ImportError: Ray is not installed.
    """
    require("ray.data", extra="ray")
    checks.config(config)
    names = dataset.columns()
    missing = [name for name in columns.used() if name not in names]
    if missing:
        raise ValueError(f"columns must be among {', '.join(names)}, got {', '.join(missing)}")
    check_free(names, columns)

    def of_group(table: Any) -> Any:
        rollouts = [parse_row(data, columns, row) for row, data in enumerate(plain_rows(table))]
        scores = score_groups(rollouts, config, load_tokenizer(tokenizer) if tokenizer else None)
        return with_scores(table, rollouts, scores).drop_columns([ROW])

    return dataset.groupby(list(columns.group)).map_groups(of_group, batch_format="pyarrow")
