"""What a task may change about its grading."""

from dataclasses import dataclass

# Where an answer is looked for, in this order; see `extract_answer`.
EXTRACTION = ("tag", "final", "box", "phrase", "whole", "expression")
EXTRACTORS = (*EXTRACTION, "number")


@dataclass(frozen=True)
class GradingOptions:
    """How answers are found and compared.

    Attributes:
        extraction: where the answer is looked for, the first that has one counts: "tag" (the last
            `<answer>...</answer>`, unless a box follows it), "final" (what "the final answer is" announces behind the
            last box), "box" (the last `\\boxed{}`), "phrase" ("the answer is ..." and `####`), "whole" (a text that is
            nothing but an answer), "expression" (the last formula or number), "number" (the last number).
        relative_tolerance: how far a number may be off if it or the answer is a decimal, as a share of the answer,
            for tasks whose answers are measured or rounded; then it may also be rounded to the two or more digits
            that the answer states. None for exact answers.

    Raises:
        ValueError: an unknown place to look for answers, none at all, or a tolerance outside [0, 1).
    """

    extraction: tuple[str, ...] = EXTRACTION
    relative_tolerance: float | None = None

    def __post_init__(self) -> None:
        for name in self.extraction:
            if name not in EXTRACTORS:
                raise ValueError(f"extraction must name {', '.join(EXTRACTORS)}, got {name!r}")
        if not self.extraction:
            raise ValueError("extraction must name at least one place to look for the answer, got ()")
        if self.relative_tolerance is not None and not 0 <= self.relative_tolerance < 1:
            raise ValueError(f"relative_tolerance must be at least 0 and below 1, got {self.relative_tolerance}")
