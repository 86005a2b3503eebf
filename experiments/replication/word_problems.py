"""Word problems of 2 to 6 steps of arithmetic, in many wordings, with worked solutions in prose.

    prompt      Mia has 12 apples. Later Mia buys 7 more. Tom has twice as many apples as Mia. How many ...?
    completion  First, Mia has 12+7=19. Next, it is 19*2=38 apples. The answer is 38.

Tokens are pieces of a byte-pair encoding, digits single. The reward is 1 when the answer is right.

The teacher often misreads some wordings, always in the same way ("twice as many" as two more), and slips in results. A
model that imitates it has these mistakes to unlearn, one wording at a time.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from os.path import commonprefix

from teachers import SPECIAL, fast_tokenizer, slip, teach
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label
from ktae.seeds import derived_seed

MIN_STEPS, MAX_STEPS, LARGEST = 2, 6, 120
VOCABULARY, CORPUS = 1024, 2000  # pieces at most, and how many problems they are learned from
# How often the teacher misreads what it can misread, and slips in a result (at first, when it checks).
MISREADING_RATE, SLIP_RATE = 0.4, (0.03, 0.01)
FILLER_RATE, CHECK_RATE = 0.2, 0.1

_NAMES = """
    Mia Tom Ana Ben Eva Sam Lea Max Zoe Leo Ivy Jack Nora Paul Rosa Omar Lily Hugo Emma Carl Ruth Finn Alma Dan Vera
    Noah Jane Igor Kate Luis Maya Owen Tara Yusuf Wendy Peter Clara Jonas Helen Amir Sofia Lucas Laura Simon Marta
    Felix Elena David Alice Oscar Julia Martin Grace Robert Diana Victor Irene Samuel Naomi Daniel Hannah Thomas
    Teresa Andrew Sarah Michael Olivia George Amelia Edward Sophie Arthur Bianca Walter Carmen Gustav Esther Rashid
    Fatima Kenji Yuki Priya Arjun Ingrid Bjorn Chloe Pierre Greta Stefan Lucia Marco Nadia Tariq Linda Kevin Paula
    Anton Selma Bruno Doris Henry
""".split()  # noqa: SIM905 (a hundred words without their quotes)
_THINGS = """
    apples pears marbles stickers shells coins cards books pencils stamps cookies flowers beads buttons balloons
    tickets candles peaches plums stones ribbons badges puzzles postcards lemons melons cherries oranges bananas
    carrots tomatoes potatoes onions walnuts acorns feathers keys spoons forks plates cups bottles baskets hats
    scarves gloves socks shirts magnets crayons markers notebooks letters photos posters stars robots dolls kites
    rockets trains tractors dinosaurs muffins pancakes sandwiches pretzels lollipops chocolates roses tulips seeds
    bricks tiles planks nails screws blankets pillows lanterns mirrors brushes whistles drums guitars necklaces
    bracelets
""".split()  # noqa: SIM905 (a hundred words without their quotes)


@dataclass(frozen=True)
class Wording:
    """A kind of sentence in a problem.

    Attributes:
        operation, number: what to do to the number of {p}, or with `packs` to {m}, which then adds to it; {n} is drawn
            where `number` is None, else it is said in words. The result is that of {q}, someone new, if there is a {q}.
        phrase: [one|of these]; {t} stands for the things, {r} for a bystander.
        misread: the operation and number that the teacher may take instead; None as a number is the right one.
    """

    operation: str
    number: int | None
    phrase: str
    misread: tuple[str, int | None] | None = None
    packs: bool = False


_WORDINGS = (
    Wording("+", None, "{p} [buys|finds|gets|earns|wins|collects|borrows] {n} [|more |other |new ]{t}"),
    Wording("+", None, "[{r} gives {p}|{r} sends {p}|{p} receives from {r}|a friend brings {p}] {n} [|more ]{t}"),
    Wording("-", None, "{p} [loses|sells|drops|gives away|uses|throws out|leaves behind] {n} [|of the ]{t}"),
    Wording("-", None, "[{p} gives {r}|{r} takes from {p}|{p} hands {r}|{p} lends {r}] {n} [|of the ]{t}"),
    Wording("+", 12, "{p} [buys|finds|gets|wins|collects|borrows] a dozen [|more |other ]{t}", ("+", 10)),
    Wording("*", 2, "[{p} doubles the number of {t}|the {t} of {p} double in number|{p} doubles the {t}]"),
    Wording("/", 2, "{p} [loses|sells|uses|gives away] half of the {t}"),
    Wording("*", None, "{p} [buys|finds|opens] {n} [boxes|bags|packs|jars] [with|of] {m} {t} each", packs=True),
    Wording("*", 7, "{p} [buys|finds|gets|collects] {m} {t} [a|each|every] day for a week", ("*", 5), packs=True),
    Wording("+", None, "{q} [has|owns|keeps] [{n} more {t}|{n} {t} more] than {p}"),
    Wording("-", None, "{q} [has|owns|keeps] [{n} fewer {t}|{n} {t} fewer|{n} {t} less] than {p}", ("+", None)),
    Wording("-", None, "{p} [has|owns|keeps] [{n} more {t}|{n} {t} more] than {q}", ("+", None)),
    Wording("*", 2, "{q} [has|owns|keeps] twice [as many|as many {t}|as many as {p}|as many {t} as {p}]", ("+", 2)),
    Wording("*", 3, "{q} [has|owns|keeps] three times as many [{t}|as {p}|{t} as {p}]", ("+", 3)),
    Wording("/", 2, "{q} [has|owns|keeps] half as many [{t}|as {p}|{t} as {p}]", ("-", 2)),
)
_START = "[|One day |At first |In the morning |On Monday ]{p} [has|owns|starts with|keeps|brings] {n} {t}"
_WHEN = "[||Then |Later |After that |The next day |In the evening |On Friday |At school |At home |One hour later ]"
# The questions, and what is still to be done for them: nothing, the sum of two people's, a product.
_QUESTIONS = {
    "one": "How many {t} does {p} [have|own|keep|end up with|have now|have in the end]?",
    "both": "How many {t} do {p} and {q} [have|own] [together|in all|in total|altogether]?",
    "money": "[Each|One] of the {t} [costs|is worth] {n} dollars. "
    "How [much|many dollars] do the {t} of {p} [cost|bring] in all?",
}
# No word of a solution says the operation before its sign does.
_SOLVED = {
    "one": "[||||from {a} and {b} ][we get {e}|this gives {e}|it is {e}|{p} has {e}|we have {e} {t}|it is {e} {t}].",
    "packs": "[||||with {a} and {b} ][that is {e}|these are {e}|this part is {e}|we find {e} {t}].",
    "both": "[||||from {a} and {b} ][we get {e}|it is {e}|both have {e}|both have {e} {t}].",
    "money": "[||||with {a} and {b} ][that is {e}|it comes to {e}|we count {e}|it is {e} dollars].",
}
_FIRST = "[First, |To begin with, |Step one: |]"
_NEXT = "[Next, |Then |After that, |Now |In the next step, |So |]"
_FILLER = "[So far so good.|Let us go on.|Now read on.|That was easy.|Keep going.|This looks fine.|One more thing.]"
_CHECK = "[Let me check: |A quick check: |To be sure, check: ]"
_VERDICT = {True: "[, good.|, yes.|, the same.]", False: "[, so I was wrong.|, not the same.|, which is better.]"}
_ANSWER = "[The answer is |Hence the answer is |Thus the answer is ]"
_NUMBER = re.compile(
    r"(?P<check>check: )?(?P<left>\d+)(?P<operation>[-+*/])(?P<right>\d+)=(?P<result>\d+)"
    r"|(?:(?:The|(?:Hence|Thus) the) )?answer is (?P<answer>\d+)|(?P<mention>\d+)"
)


def _say(template: str, rng: random.Random, **parts: object) -> str:
    """One of the template's wordings, its first letter a capital one."""
    text = re.sub(r"\[(.*?)\]", lambda match: rng.choice(match[1].split("|")), template).format(**parts)
    return text[:1].upper() + text[1:]


class Result(int):
    """An operand that is the result of the step of this index."""


@dataclass(frozen=True)
class Step:
    """One equation of a solution; `said` is a key of what can be said about it, `in_words` tells of `right`."""

    left: int
    operation: str
    right: int
    said: str
    people: tuple[str, ...]
    misread: tuple[str, int | None] | None = None
    in_words: bool = False


@dataclass(frozen=True)
class WordProblem:
    """A prompt, what it counts, and the steps that lead to its answer."""

    prompt: str
    things: str
    steps: tuple[Step, ...]

    @property
    def results(self) -> list[int]:
        """The right result of every step; 0 stands for one that cannot be (a division by 0)."""
        found: list[int] = []
        for step in self.steps:
            found.append(_apply(_value(step.left, found), step.operation, _value(step.right, found)) or 0)
        return found

    @property
    def answer(self) -> int:
        """The last result."""
        return self.results[-1]


def _value(operand: int, results: Sequence[int]) -> int:
    return results[operand] if isinstance(operand, Result) else operand


def _apply(a: int, operation: str, b: int) -> int | None:
    """In whole numbers of at least 0, as wrong values may not come out even; None for a division by 0."""
    match operation:
        case "+":
            return a + b
        case "-":
            return max(a - b, 0)
        case "*":
            return a * b
        case _:
            return a // b if b else None


def sample_problem(rng: random.Random) -> WordProblem:
    """One whose results are all whole, from 1 to `LARGEST`."""
    while (problem := _draw(rng)) is None or not _sound(problem):
        pass
    return problem


def _sound(problem: WordProblem) -> bool:
    lefts = [_value(step.left, problem.results) for step in problem.steps]
    even = all(a % step.right == 0 for a, step in zip(lefts, problem.steps, strict=True) if step.operation == "/")
    return even and 1 <= min(problem.results) <= max(problem.results) <= LARGEST


def _draw(rng: random.Random) -> WordProblem | None:
    """A story of the length and question drawn at first; None if it came out otherwise."""
    person, bystander, *others = rng.sample(_NAMES, 6)
    things, question = rng.choice(_THINGS), rng.choice(list(_QUESTIONS))
    length = rng.randint(MIN_STEPS, MAX_STEPS) - (question != "one")
    numbers: dict[str, int] = {person: rng.randint(3, 25)}
    sentences = [_say(f"{_START}.", rng, p=person, n=numbers[person], t=things)]
    steps: list[Step] = []
    while len(steps) < length:
        wording = rng.choice([w for w in _WORDINGS if others or "{q}" not in w.phrase])
        subject = others.pop() if "{q}" in wording.phrase else person
        n, m = wording.number or rng.randint(2, 5 if wording.packs else 12), rng.randint(2, 9)
        when = _WHEN if subject == person else ""
        sentences.append(_say(f"{when}{wording.phrase}.", rng, p=person, q=subject, r=bystander, n=n, m=m, t=things))
        in_words, said = wording.number is not None, "packs" if wording.packs else "one"
        left, right = numbers[person], n
        if wording.packs:
            left, right = (m, n) if in_words else (n, m)
        steps.append(Step(left, wording.operation, right, said, (subject,), wording.misread, in_words))
        if wording.packs:
            steps.append(Step(numbers[person], "+", Result(len(steps) - 1), "one", (subject,)))
        person, numbers[subject] = subject, Result(len(steps) - 1)
    price, other = rng.randint(2, 5), rng.choice(list(numbers))
    if len(steps) > length or (question == "both" and other == person):
        return None
    if question == "money":
        steps.append(Step(numbers[person], "*", price, question, (person,)))
    elif question == "both":
        steps.append(Step(numbers[person], "+", numbers[other], question, (person, other)))
    sentences.append(_say(_QUESTIONS[question], rng, p=person, q=other, n=price, t=things))
    return WordProblem(" ".join(sentences), things, tuple(steps))


def teacher_trace(problem: WordProblem, rng: random.Random, *, slips: bool = True) -> str:
    """A worked solution. With `slips=False` everything is right and only the wording varies."""
    sentences: list[str] = []
    results: list[int] = []
    for step in problem.steps:
        if sentences and rng.random() < FILLER_RATE:
            sentences.append(_say(_FILLER, rng))
        operation, a, b = step.operation, _value(step.left, results), _value(step.right, results)
        if slips and step.misread and rng.random() < MISREADING_RATE:
            operation, b = step.misread[0], step.misread[1] or b
        right = _apply(a, operation, b)
        assert right is not None, "no operand is 0"
        result = slip(right, SLIP_RATE[0] * slips, rng)
        parts = {"p": step.people[0], "q": step.people[-1], "a": a, "b": b, "t": problem.things}
        template = (_NEXT if results else _FIRST) + _SOLVED[step.said]
        sentences.append(_say(template, rng, e=f"{a}{operation}{b}={result}", **parts))
        if rng.random() < CHECK_RATE:
            checked = slip(right, SLIP_RATE[1] * slips, rng)
            sentences.append(f"{_say(_CHECK, rng)}{a}{operation}{b}={checked}{_say(_VERDICT[checked == result], rng)}")
            result = checked
        results.append(result)
    return " ".join([*sentences, f"{_say(_ANSWER, rng)}{results[-1]}."])


def extract_answer(completion: str) -> int | None:
    """The number that a completion ends with, or None if it does not end in `answer is <number>.`

    >>> [extract_answer(text) for text in ("We get 3+4=7. The answer is 7.", "The answer is 7", "We get 3+4=7.")]
    [7, None, None]
    """
    match = re.search(r"answer is (\d+)\.$", completion)
    return int(match[1]) if match else None


def label_tokens(problem: WordProblem, tokens: Sequence[str]) -> list[Label]:
    """The label of every token of a completion (as in the vocabulary, with its end token if it has one).

    Judged are operands, operations and results of the equations, every other number, and the answer. Copied numbers
    and the wording have no label when they are right. Of a wrong number the slip is the first digit that no right one
    begins with, or, where digits are missing, the token after it. A number in the prose must be an operand of the next
    equation or an earlier result; an equation that takes over a wrong one follows from it. Slips are also an answer
    before all steps are done, and more steps than there are. An answer without a slip before it is right.

    >>> step = Step(12, "*", 2, "one", ("Mia",), in_words=True)
    >>> pieces = ["Mia", "Ġhas", "Ġ", "1", "2", "+", "2", "=", "1", "4", ".", "ĠThe", "Ġanswer is ", "1", "4", "."]
    >>> [label.name for label in label_tokens(WordProblem("", "apples", (step,)), pieces) if label]
    ['SLIP', 'RIGHT', 'PROPAGATED', 'PROPAGATED', 'PROPAGATED', 'PROPAGATED']
    """
    pieces = [token.replace("Ġ", " ") for token in tokens]
    marks = _judge(problem, "".join(pieces))
    ends = list(itertools.accumulate(map(len, pieces)))
    spans = [marks[end - len(piece) : end] for end, piece in zip(ends, pieces, strict=True)]
    return [Label.SLIP if Label.SLIP in span else max(span, default=Label.OTHER) for span in spans]


def _judge(problem: WordProblem, text: str) -> list[Label]:
    """The label of every character, and of the one after the last."""
    marks = [Label.OTHER] * (len(text) + 1)
    truth, steps = problem.results, problem.steps
    own: list[int] = []  # the response's own results
    mistaken: set[str] = set()  # wrong numbers in the prose since the last equation

    def mark(match: re.Match[str], name: str, right: set[str], label: Label) -> bool:
        """Marks a number: `label` as far as one of the right ones goes, then a slip and what follows from it."""
        (start, end), written = match.span(name), match[name]
        same = max((len(commonprefix([written, number])) for number in right), default=0)  # noqa: RUF071 (texts, not paths)
        marks[start:end] = [label] * same + [Label.PROPAGATED] * (end - start - same)
        if written not in right:
            marks[start + same] = Label.SLIP
        return written in right

    for match in _NUMBER.finditer(text):
        place = len(own) - bool(match["check"] and own)
        step = steps[place] if place < len(steps) else None
        needed = [str(_value(operand, own)) for operand in (step.left, step.right)] if step else []
        if match["mention"]:
            if not mark(match, "mention", {*needed, *map(str, own)}, Label.OTHER):
                mistaken.add(match["mention"])
        elif match["answer"]:
            if len(own) != len(steps):
                marks[match.start()] = Label.SLIP
            right = own[-1:] == [problem.answer]
            mark(match, "answer", set(map(str, own[-1:])), Label.RIGHT if right else Label.PROPAGATED)
        else:
            a, operation, b = match.group("left", "operation", "right")
            if step is None:
                marks[match.start("left")] = Label.SLIP
            else:
                if operation in "+*" and [b, a] == needed:
                    needed = [a, b]
                for name, number in zip(("left", "right"), needed, strict=True):
                    label = Label.RIGHT if name == "right" and step.in_words else Label.OTHER
                    label = Label.PROPAGATED if match[name] in mistaken else label
                    mark(match, name, {match[name] if match[name] in mistaken else number}, label)
                if marks[match.start("operation")] != Label.SLIP:
                    marks[match.start("operation")] = Label.RIGHT if operation == step.operation else Label.SLIP
            follows = _apply(int(a), operation, int(b))
            right = step is not None and follows == truth[place]
            mark(match, "result", {str(follows)}, Label.RIGHT if right else Label.PROPAGATED)
            own[place:] = [int(match["result"])]
            mistaken = set()
    return marks


@cache
def build_tokenizer() -> PreTrainedTokenizerFast:
    """At most `VOCABULARY` pieces learned from `CORPUS` problems with the teacher's traces, always the same."""
    rng = random.Random(derived_seed("word problems, tokenizer"))
    problems = [sample_problem(rng) for _ in range(CORPUS)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False)
    texts = (text for problem in problems for text in (problem.prompt, teacher_trace(problem, rng)))
    tokenizer.train_from_iterator(texts, trainer)
    return fast_tokenizer(tokenizer)


def rollouts(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher's traces, as a source of `ktae bench credit`; a token is a piece of the byte-pair encoding."""
    return assemble(traces(groups, group_size, seed), group_size, separator="")


def traces(groups: int, group_size: int, seed: int) -> list[WordRollout]:
    """Those that `rollouts` is made of."""

    def solve(problem: WordProblem, rng: random.Random) -> WordRollout:
        trace = teacher_trace(problem, rng)
        tokens = build_tokenizer().tokenize(trace)
        return WordRollout(extract_answer(trace) == problem.answer, tokens, label_tokens(problem, tokens))

    return teach(groups, group_size, seed, sample_problem, solve)
