"""Seeds made of other numbers."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A seed for a part of the work, such as one batch of a run with a seed.

    Hashed rather than added or shifted: neighbouring parts must not share draws, and torch's CPU generator looks at
    the lowest 32 bits only.

    Args:
        *parts: what makes the part, such as (seed, number of the batch).

    Returns:
        An integer from 0 to 2**32 - 1.

    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:4], "big")
