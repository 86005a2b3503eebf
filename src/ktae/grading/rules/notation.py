r"""One spelling for what LaTeX, Unicode and plain text write in many ways.

Every pattern takes time linear in the text, because this also runs in the caller's process.
"""

import re

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

_UNICODE = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{THIN SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{MULTIPLICATION SIGN}": r"\times ",
        "\N{DOT OPERATOR}": r"\cdot ",
        "\N{MIDDLE DOT}": r"\cdot ",
        "\N{DIVISION SIGN}": "/",
        "\N{FRACTION SLASH}": "/",
        "\N{PLUS-MINUS SIGN}": r"\pm ",
        "\N{LESS-THAN OR EQUAL TO}": r"\le ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
        "\N{NOT EQUAL TO}": r"\ne ",
        "\N{ALMOST EQUAL TO}": r"\approx ",
        "\N{ELEMENT OF}": r"\in ",
        "\N{UNION}": r"\cup ",
        "\N{INTERSECTION}": r"\cap ",
        "\N{EMPTY SET}": r"\emptyset ",
        "\N{INFINITY}": r"\infty ",
        "\N{SQUARE ROOT}": r"\sqrt ",
        "\N{DEGREE SIGN}": r"^{\circ}",
        "\N{PRIME}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{SUPERSCRIPT TWO}": "^{2}",
        "\N{SUPERSCRIPT THREE}": "^{3}",
        "\N{VULGAR FRACTION ONE HALF}": r"\frac{1}{2}",
        "\N{VULGAR FRACTION ONE QUARTER}": r"\frac{1}{4}",
        "\N{VULGAR FRACTION THREE QUARTERS}": r"\frac{3}{4}",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{GREEK SMALL LETTER THETA}": r"\theta ",
        "\N{GREEK SMALL LETTER ALPHA}": r"\alpha ",
        "\N{GREEK SMALL LETTER BETA}": r"\beta ",
    }
)

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Thousands: 1{,}234 and 1,\!234 and 1\,234.
        (r"\{,\}|,\\!\s*", ","),
        (r"(?<=[0-9])\\[,!;]\s*(?=[0-9]{3}(?![0-9]))", ""),
        # Delimiters of formulas (the one of a line break is `\\[2pt]`), Markdown, and what only changes the looks.
        (r"(?<!\\)\\[()\[\]]|(?<!\\)\$|\*\*", " "),
        (r"\\(?:left|right)\s*\.", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathstrut|hfill)(?![a-zA-Z])", ""),
        (r"\\h(?:space|phantom)\*?\{[^{}]*\}", " "),
        (r"\\q?quad|\\(?:thin|med|thick|neg)?space(?![a-zA-Z])|(?<!\\)\\[,;:!> ]|~(?!=)", " "),
        (r"\\(?:mathbf|boldsymbol|bm)\s*\{([a-zA-Z])\}", r"\1"),
        # Text in one command, but for the letters that are upright in formulas.
        (r"\\mathrm\s*\{\s*([eid])\s*\}", r"\1"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|normal)|mbox|hbox|mathrm|mathit|mathsf)\*?\s*(?=\{)", r"\\text"),
        (r"\{\\(?:rm|bf|it)\s+([^{}]*)\}", r"\\text{\1}"),
        (r"\\text\{\s*\}", " "),
        (r"\\text\{\s*and[,:]?\s*\}|\\(?:land|wedge)(?![a-zA-Z])|(?<![A-Za-z\\])and(?![a-z])", " ; "),
        (r"\\text\{\s*or[,:]?\s*\}|\\(?:lor|vee)(?![a-zA-Z])|(?<![A-Za-z\\])or(?![a-z])", r" \\lor "),
        (r"\b([aApP])\.\s?[mM]\.?(?![a-zA-Z])", r"\1m"),
        (r"\\text\{\s*\(?\s*mod\s*([0-9]+)\s*\)?\s*\}|\(\s*\\?[bm]?mod\s*([0-9]+)\s*\)", r"\\pmod{\1\2}"),
        # Synonyms.
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\leqslant|\\leq(?![a-z])|<=|=<", r"\\le "),
        (r"\\geqslant|\\geq(?![a-z])|>=", r"\\ge "),
        (r"\\neq(?![a-z])|(?<=\s)!=", r"\\ne "),  # but 5!=120
        (r"\\lt(?![a-z])|&lt;", "<"),
        (r"\\gt(?![a-z])|&gt;", ">"),
        (r"\\(?:simeq|approxeq)(?![a-z])|~=", r"\\approx "),
        (r"\\\$\s+(?=[0-9])", r"\\$"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\\[lr]?vert(?![a-z])|\\mid(?![a-z])", "|"),
        (r"\\(?:colon)(?![a-z])", ":"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\lg(?![a-z])", r"\\log_{10}"),
        (r"\+\s*\\infty|\+\s*(?:infinity|infty)", r"\\infty"),
        (r"(?<![a-zA-Z\\])inf(?:ini)?ty(?![a-z])", r"\\infty"),
        (r"\\(?:degree|textdegree)(?![a-z])|\^\s*\\circ(?![a-z])|\^\{\s*\\circ\s*\}", r"^{\\circ}"),
        (r"\\%", "%"),
        (r"(?<=[0-9])\s*(?:\^\{\s*\\prime\s*\\prime\s*\}|'')", r"\\text{arcsec}"),
        (r"(?<=[0-9])\s*\^\{\s*\\prime\s*\}", r"\\text{arcmin}"),
        (r"\{\s*\\text\{([^{}]*)\}\s*\}", r"{\1}"),
        # 12^{\text{th}}, 12^{th}, 12\text{th} and 12th.
        (
            r"(?<=[0-9])\s*(?:\^?\{?\\text\{\s*(?:st|nd|rd|th)\s*\}\}?|\^\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th)(?![a-z]))",
            "",
        ),
        # What may go without braces.
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*(?=\{)", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\^\s*(-?[0-9]+)", r"^{\1}"),
        (r"([_^])\s*([0-9a-zA-Z]|\\(?!frac|sqrt|text)[a-zA-Z]+)", r"\1{\2}"),
        (r"_\{\s*\\([a-zA-Z]+)\s*\}", r"_{\1}"),
        (r"\s+", " "),
        (r"(?<=[{(\[]) | (?=[})\]])", ""),
    )
]
# After the spaces are gone; outside a sequence they separate numbers, as in 1 1/2.
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")


def repair(text: str) -> str:
    r"""Undo what string literals do to LaTeX: `\\frac` for `\frac`, a tab for the `\t` of `\text`.

    >>> repair("\\\\boxed{\text{east}}")
    '\\boxed{\\text{east}}'
    """
    text = _LOST_BACKSLASH.sub(lambda match: "\\" + _LETTER_OF[match[0]], text)
    return _DOUBLED_BACKSLASH.sub(r"\\", text).translate(_UNICODE)


# An unpaired dollar before a number is money.
_PRICE = re.compile(r"(-?)\s*\$(\s*[0-9][0-9,]*(?:\.[0-9]+)?)")
_MAX_SYSTEM = 2000
_SYSTEM = re.compile(r"\\begin\s*\{cases\}([^&{}]*(?:\{[^{}]*\}[^&{}]*)*)\\end\s*\{cases\}")


def clean(answer: str) -> str:
    r"""An answer in one spelling, without the delimiters of formulas, spacing and a full stop.

    `;` stands for "and", `\lor` for "or". Text is `\text{...}`, a fraction `\frac{}{}`, a degree sign `^{\circ}`, and a
    dollar as a currency stays `\$`.

    >>> clean(r"$\left( \dfrac12,\, 10,\!000 \right)$."), clean(r"x \leq 2 \text{ or } x_1=5^\circ")
    ('(\\frac{1}{2}, 10,000)', 'x \\le 2 \\lor x_{1}=5^{\\circ}')
    """
    answer = repair(answer)
    if match := _PRICE.fullmatch(answer.strip()):
        answer = rf"{match[1]}\${match[2]}"
    if len(answer) <= _MAX_SYSTEM:
        answer = _SYSTEM.sub(lambda match: match[1].replace(r"\\", ","), answer)
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    # Of a decimal such as .5 the point stays.
    return answer.rstrip(' .,;:"').lstrip(' ,;:"')


def spelling(cleaned: str) -> str:
    """A cleaned answer without the spaces that mean nothing: equal spellings are equal answers.

    >>> spelling("( 1, 2 )"), spelling("1 1/2")
    ('(1,2)', '1 1/2')
    """
    return _IDLE_SPACE.sub("", cleaned)
