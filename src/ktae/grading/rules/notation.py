# ruff: noqa: RUF001
r"""One spelling for what LaTeX, Unicode and plain text write in many ways.

Every pattern takes time linear in the text, because this also runs in the caller's process.
"""

import itertools
import re
import unicodedata
from functools import cache, partial

# The commands of an answer, for text whose backslashes were doubled or lost in a string literal.
_COMMANDS = (
    "boxed|fbox|[dtc]?frac|sqrt|left|right|text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|bb|cal)|begin|end|cdot|times|"
    "infty|cup|cap|in|le(?:q(?:slant)?)?|ge(?:q(?:slant)?)?|neq?|lt|gt|pm|mp|circ|q?quad|angle|arc(?:sin|cos|tan)|sin|"
    "cos|tan|cot|log|ln|over(?:line|rightarrow)|binom|approx|[lr]floor|[lr]ceil|forall|bar|vec|hat|dot|to|prime|alpha|"
    "beta|gamma|delta|theta|lambda|mu|pi|rho|sigma|tau|(?:var)?phi|omega|Delta|Omega"
)
_DOUBLED_BACKSLASH = re.compile(rf"(?<!\\)\\\\(?=(?:{_COMMANDS})(?![a-zA-Z])|%)")
# "\text" in a string literal begins with a tab, "\frac" with a form feed, "\boxed" with a backspace.
_LOST_BACKSLASH = re.compile(
    r"\t(?=(?:ext|imes|heta|frac)(?:[^a-z]|bf|it|rm))|\f(?=(?:rac|orall|box)[^a-z])|"
    r"[\b](?=(?:oxed|inom|egin|eta|ar)[^a-z])|\r(?=(?:ight|ho)[^a-z])|\v(?=(?:ec|arphi)[^a-z])|"
    r"\a(?=(?:lpha|ngle|pprox)[^a-z])"
)
_LETTER_OF = {"\t": "t", "\f": "f", "\b": "b", "\r": "r", "\v": "v", "\a": "a"}
# What NFKC leaves, each sign before its command; and marks that say nothing.
_PAIRS = r"""
    − - × \times · \cdot ⋅ \cdot ∙ \cdot ÷ / ⁄ / ∕ / ± \pm ∓ \mp ≤ \le ≥ \ge ⩽ \le ⩾ \ge ≠ \ne ≈ \approx ≡ \equiv
    ∈ \in ∪ \cup ∩ \cap ∅ \emptyset ∞ \infty √ \sqrt ∛ \sqrt[3] ° ^{\circ} ˚ ^{\circ} ′ ' ’ ' “ " ” " ∧ \land ∨ \lor
    → \to ∶ : ∖ \setminus ∣ | ⟨ \langle ⟩ \rangle ⌊ \lfloor ⌋ \rfloor ⌈ \lceil ⌉ \rceil ∠ \angle △ \triangle 、 , 。 .
    ∑ \sum ∏ \prod ∫ \int"""
_SIGNS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True)) | dict.fromkeys("∎■□✓✔☑✅【】", " ")
_BLACKBOARD = {ord(sign): rf"\mathbb{{{letter}}}" for sign, letter in zip("ℕℤℚℝℂ", "NZQRC", strict=True)}
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_OVERLINED = re.compile("(?:[0-9]\u0305)+")
_ROOT = re.compile("√ ?([0-9]+)")
_GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
_SLASH = "\N{FRACTION SLASH}"
_nfkc = partial(unicodedata.normalize, "NFKC")


@cache
def _spelled(sign: str) -> str:
    """A sign beyond ASCII as LaTeX; a letter stays, a digit of any script becomes one of 0 to 9."""
    if sign in _SIGNS:
        return _SIGNS[sign] + (" " if _SIGNS[sign][-1:].isalpha() else "")
    category = unicodedata.category(sign)
    if category == "Nd":
        return str(unicodedata.decimal(sign))
    if match := _GREEK.fullmatch(unicodedata.name(sign, "")):
        name = match[2].lower().replace("lamda", "lambda").replace("final", "")
        return rf"\{name if match[1] == 'SMALL' else name.capitalize()} "
    return {"Pd": "-", "Cf": "", "Zs": " "}.get(category, sign)


def _in_latex(match: re.Match[str]) -> str:
    """Signs beyond ASCII: small raised and lowered ones as exponents and indices, fractions as such."""
    parts = []
    for tag, run in itertools.groupby(match[0], lambda sign: unicodedata.decomposition(sign).partition(" ")[0]):
        signs = "".join(run)
        if tag == "<fraction>":
            parts += (rf"\frac{{{plain.replace(_SLASH, '}{')}}}" for plain in map(_nfkc, signs))
            continue
        spelled = "".join(map(_spelled, _nfkc(signs)))
        parts.append({"<super>": "^{%s}", "<sub>": "_{%s}"}.get(tag, "%s") % spelled)
    return "".join(parts)


# Commands that change the looks only, in front of braces or of anything.
_LOOKS = (
    r"\\(?:mathbf|boldsymbol|bm|underline|uline|emph|ensuremath|mathop|mathstrut|fbox|boxed|displaystyle|textstyle|limits|nolimits|hfill|left|right|[bB]igg?[lrm]?|tiny|scriptsize|small|normalsize|"
    r"large|Large|LARGE|huge|Huge|bfseries|checkmark|blacksquare|square|Box|qed|strut)(?![a-zA-Z])|\\(?:text)?color\s*"
    r"(?:\[[A-Za-z]*\])?\{[^{}]*\}"
)
# What plain text writes without a backslash.
_FUNCTIONS = "arc(?:sin|cos|tan)|(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp|sqrt|max|min|gcd|lcm"
_NAMES = "pi|theta|alpha|beta|gamma|lambda|phi|sigma|omega"
_PLAIN_SUFFIXES = "st|nd|rd|th"

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Thousands: 1{,}234 and 1,\!234 and 1\,234.
        (r"\{,\}|,\\!\s*", ","),
        (r"(?<=[0-9])\\[,!;]\s*(?=[0-9]{3}(?![0-9]))", ""),
        (r"\\\\\s*\[[0-9.]+\s*(?:pt|em|ex|mm|cm)\]|\\cr(?![a-z])", r"\\\\"),
        # Delimiters of formulas (the one of a line break is `\\[2pt]`), Markdown, and what only changes the looks.
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\*\*(?![0-9a-zA-Z({])|(?<![0-9a-zA-Z)}])\*\*", " "),
        (r"\\(?:left|right)\s*\.", " "),
        (_LOOKS, ""),
        (r"\\[hv](?:space|phantom)\*?\{[^{}]*\}", " "),
        (r"\\\\(?:\[[0-9a-z.]*\])?\s*$", " "),
        (r"\\q?quad|\\(?:thin|med|thick|neg)?space(?![a-zA-Z])|(?<!\\)\\[,;:!> ]|~(?!=)", " "),
        # Text in one command, but for the letters that are upright in formulas.
        (r"\\mathrm\s*\{\s*([eid])\s*\}", r"\1"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)|mbox|hbox|mathrm|mathit|mathsf)\*?\s*(?=\{)", r"\\text"),
        (r"\\text\{\s*(?:and|和|且)[,:]?\s*\}|(?<![A-Za-z\\])and(?![a-z])", " ; "),
        (r"\\text\{\s*(?:or|或)[,:]?\s*\}|(?<![A-Za-z\\])or(?![a-z])", r" \\lor "),
        (r"\b([aApP])\.\s?[mM]\.?(?![a-zA-Z])", r"\1m"),
        (r"\\text\{\s*\(?\s*mod\s*([0-9]+)\s*\)?\s*\}|\(\s*\\?[bm]?mod\s*([0-9]+)\s*\)", r"\\pmod{\1\2}"),
        # Synonyms.
        (r"\\(?:[dtcs]|nice)frac(?![a-z])", r"\\frac"),
        (r"\\operatorname\*?\s*\{\s*([a-z]+)\s*\}", r"\\\1 "),
        (r"\\leqslant|\\leq(?![a-z])|<=|=<", r"\\le "),
        (r"\\geqslant|\\geq(?![a-z])|>=", r"\\ge "),
        (r"\\neq(?![a-z])|(?<=\s)!=", r"\\ne "),  # but 5!=120
        (r"\\lt(?![a-z])|&lt;", "<"),
        (r"\\gt(?![a-z])|&gt;", ">"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\\[lr]?[vV]ert(?![a-z])|\\mid(?![a-z])", "|"),
        (r"\\bigcup(?![a-z])", r"\\cup"),
        (r"\\wedge(?![a-zA-Z])", r"\\land"),
        (r"\\vee(?![a-zA-Z])", r"\\lor"),
        (r"\\text\{\s*all reals?(?: numbers)?\s*\}|^\s*all reals?(?: numbers)?\s*$", r"\\mathbb{R}"),
        (
            r"\\(begin|end)\s*\{(?:[bBp]?(?:small)?matrix|array)\*?\}(?:\s*\[[lcr]\]|\s*\{[lcr|\s]*\})?",
            r"\\\1{pmatrix}",
        ),
        (r"[(\[]\s*(?=\\begin\{pmatrix\})|(?<=\\end\{pmatrix\})\s*[)\]]", ""),
        (r"\.\.\.|\\[lc]?dots(?![a-z])", r"\\dots"),
        (r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
        (r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\+\s*/?\s*-(?=\s*[0-9a-z\\(])", r"\\pm "),
        (r"\+\s*\\infty|\+\s*(?:infinity|infty)", r"\\infty"),
        (r"(?<![a-zA-Z\\])inf(?:inity|ty)?(?![a-zA-Z])", r"\\infty"),
        (r"(\\mathbb\{R\})\s*-\s*(?=\\\{)", r"\1\\setminus "),
        (rf"(?<![a-zA-Z\\])({_FUNCTIONS})(?=[\s(^_0-9]|pi(?![a-z]))", r"\\\1"),
        (rf"(?<![a-zA-Z\\])({_NAMES})(?![a-zA-Z])", r"\\\1"),
        (r"(?<=[0-9a-zA-Z)}])\s*\*\*\s*(?=[0-9a-zA-Z({-])", "^"),
        (r"\\(?:text)?degree(?![a-z])|\^\s*\\circ(?![a-z])|\^\{\s*\\circ\s*\}|(?<=[0-9])\^\{o\}", r"^{\\circ}"),
        (r"\\%", "%"),
        (r"(?<=[0-9])\s*(?:\^\{\s*\\prime\s*\\prime\s*\}|'')", r"\\text{arcsec}"),
        (r"(?<=[0-9])\s*\^\{\s*\\prime\s*\}", r"\\text{arcmin}"),
        (r"(\^\{\\circ\}\s*[0-9.]+)\s*'(?!')", r"\1\\text{arcmin}"),
        (r"\{\s*\\text\{([^{}]*)\}\s*\}", r"{\1}"),
        # 12^{\text{th}}, 12^{th}, 12\text{th} and 12th.
        (
            rf"(?<=[0-9])\s*(?:\^?\{{?\\text\{{\s*(?:{_PLAIN_SUFFIXES})\s*\}}\}}?|\^\{{(?:{_PLAIN_SUFFIXES})\}}"
            rf"|(?:{_PLAIN_SUFFIXES})(?![a-z]))",
            "",
        ),
        # What may go without braces.
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*(?=\{)", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\sqrt\s*(\[[^\[\]]*\])?\s*([0-9a-zA-Z])", r"\\sqrt\1{\2}"),
        (r"\^\s*(-?[0-9]+|-[a-z])", r"^{\1}"),
        (r"([_^])\s*([0-9a-zA-Z]|\\(?!frac|sqrt|text)[a-zA-Z]+)", r"\1{\2}"),
        (r"_\{\s*\\([a-zA-Z]+)\s*\}", r"_{\1}"),
        # Braces that TeX does not print.
        (r"(?<![a-zA-Z\]}_^])\{([0-9a-zA-Z.]+)\}", r"\1"),
        (r"\s+", " "),
        (r"(?<=[{(\[]) | (?=[})\]])", ""),
    )
]
# After the spaces are gone; outside a sequence they separate numbers, as in 1 1/2.
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")


def repair(text: str) -> str:
    r"""Undo what string literals do to LaTeX (`\\frac` for `\frac`, a tab for the `\t` of `\text`); Unicode as LaTeX.

    >>> repair("½·10⁻³")
    '\\frac{1}{2}\\cdot 10^{-3}'
    """
    text = _LOST_BACKSLASH.sub(lambda match: "\\" + _LETTER_OF[match[0]], text)
    text = _OVERLINED.sub(lambda match: rf"\overline{{{match[0][::2]}}}", _DOUBLED_BACKSLASH.sub(r"\\", text))
    return _NON_ASCII.sub(_in_latex, _ROOT.sub(r"\\sqrt{\1}", text.translate(_BLACKBOARD)))


# An unpaired dollar before a number is money.
_PRICE = re.compile(r"(-?)\s*\$(\s*[0-9][0-9,]*(?:\.[0-9]+)?)")
_MAX_SYSTEM = 2000
_SYSTEM = re.compile(r"\\begin\s*\{cases\}([^&{}]*(?:\{[^{}]*\}[^&{}]*)*)\\end\s*\{cases\}")
_ROUND = re.compile(r"(\^|\\sqrt(?:\[[^\[\]]*\])?)\s*\(|[()]")


def clean(answer: str) -> str:
    r"""An answer in one spelling, without the delimiters of formulas, spacing and a full stop.

    `;` stands for "and", `\lor` for "or". Text is `\text{...}`, a fraction `\frac{}{}`, a degree sign `^{\circ}`, and a
    dollar as a currency stays `\$`.

    >>> clean(r"$\left( \dfrac12,\, 10,\!000 \right)$."), clean("e^(2x) + sqrt(2)*pi")
    ('(\\frac{1}{2}, 10,000)', 'e^{2x} + \\sqrt{2}*\\pi')
    """
    answer = repair(answer)
    if match := _PRICE.fullmatch(answer.strip()):
        answer = rf"{match[1]}\${match[2]}"
    if len(answer) <= _MAX_SYSTEM:
        answer = _SYSTEM.sub(lambda match: match[1].replace(r"\\", ","), answer)
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    # Of a decimal such as .5 the point stays.
    return _with_braces(answer).rstrip(' .,;:"').lstrip(' ,;:"=')


def _with_braces(text: str) -> str:
    """Round brackets of an exponent or a root as braces."""
    stack: list[bool] = []

    def brace(match: re.Match[str]) -> str:
        if match[0] != ")":
            stack.append(match[1] is not None)
            return f"{match[1]}{{" if match[1] else "("
        return "}" if stack and stack.pop() else ")"

    return _ROUND.sub(brace, text)


def spelling(cleaned: str) -> str:
    """A cleaned answer without the spaces that mean nothing: equal spellings are equal answers."""
    return _IDLE_SPACE.sub("", cleaned)
