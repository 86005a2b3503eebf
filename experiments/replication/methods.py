"""The methods that are compared, by name."""

from ktae.bench import rivals
from ktae.config import KTAEConfig

METHODS = {
    "": rivals.uniform,
    "ktae": rivals.key_tokens(KTAEConfig()),
    "mean": rivals.key_mean(KTAEConfig()),
    "tempo": rivals.prefix_tree,
    "gtpo": rivals.entropy_weighted,
    "80/20": rivals.high_entropy_only,
    "oracle": rivals.oracle,
}
