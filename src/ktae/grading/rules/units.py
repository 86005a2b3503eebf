r"""Units, currencies and percent signs behind a value.

A unit that only one of two answers has does not matter. Of two units the few in the table below convert exactly; any
other two are different unless they are spelled the same.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

# Each kind of quantity, and its units in terms of its first one. All exact by definition.
_KINDS: dict[str, dict[str, Fraction]] = {
    "length": {
        "m meter metre": Fraction(1),
        "km kilometer kilometre": Fraction(1000),
        "dm": Fraction(1, 10),
        "cm centimeter centimetre": Fraction(1, 100),
        "mm millimeter millimetre": Fraction(1, 1000),
        "nm nanometer nanometre": Fraction(1, 10**9),
        "inch inches in": Fraction(254, 10000),
        "foot feet ft": Fraction(3048, 10000),
        "yard yd": Fraction(9144, 10000),
        "mile mi": Fraction(1609344, 1000),
    },
    "time": {
        "s sec second": Fraction(1),
        "ms millisecond": Fraction(1, 1000),
        "min minute": Fraction(60),
        "h hr hour": Fraction(3600),
        "day": Fraction(86400),
        "week": Fraction(604800),
        "yr year": Fraction(0),  # of no exact length: different from all others
    },
    "mass": {
        "g gram": Fraction(1),
        "kg kilogram": Fraction(1000),
        "mg milligram": Fraction(1, 1000),
        "lb lbs pound": Fraction(45359237, 100000),
        "oz ounce": Fraction(45359237, 1600000),
    },
    "volume": {"L l liter litre": Fraction(1), "mL ml milliliter millilitre": Fraction(1, 1000)},
    "money": {"dollar \\$ USD": Fraction(1), "cent \N{CENT SIGN}": Fraction(1, 100)},
    "euro": {"euro \N{EURO SIGN} EUR": Fraction(1)},
    "sterling": {"\N{POUND SIGN} GBP": Fraction(1)},
    "angle": {
        "degree deg ^{\\circ}": Fraction(1),
        "arcmin arcminute": Fraction(1, 60),
        "arcsec arcsecond": Fraction(1, 3600),
    },
    "radian": {"radian rad": Fraction(1)},
    "energy": {"J joule": Fraction(1), "kJ kilojoule": Fraction(1000)},
    "power": {"W watt": Fraction(1), "kW kilowatt": Fraction(1000)},
    "frequency": {"Hz hertz": Fraction(1), "kHz": Fraction(1000), "MHz": Fraction(10**6), "GHz": Fraction(10**9)},
    "force": {"N newton": Fraction(1), "kN": Fraction(1000)},
    "temperature": {"K kelvin": Fraction(1)},
    "pressure": {"Pa pascal": Fraction(1), "kPa": Fraction(1000)},
}
_TABLE = {
    name: (kind, factor) for kind, units in _KINDS.items() for names, factor in units.items() for name in names.split()
}
_COMPOUNDS = {"mph": "mile/h", "kph": "km/h", "kmph": "km/h", "cc": "cm^{3}", "sq": "square", "cu": "cubic"}
_POWERS = {"square": 2, "cubic": 3, "squared": 2, "cubed": 3}
_PERCENT = ("%", "percent", "percentage", "pct", "per cent")
# A number of anything.
_NEUTRAL = {"", "unit", "square unit", "cubic unit", "sq unit", "unit^{2}", "units^{2}", "unit^{3}", "units^{3}"}
# Words that change the value or its meaning; with one of them a text is no unit.
_NO_UNITS = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|more|less|not|no|least|most|than|over|under|times|plus|"
    r"minus|if|when|where|for|with|without|only|of|is|are|undefined|a\.?m|p\.?m|modulo|mod|base)\b"
)
_MAX_WORDS = 5
# Abbreviations of one letter are units only in \text{}, since otherwise they may be factors. So may "km".
_BARE_NAMES = sorted(
    (
        name
        for name in {*_TABLE, *_COMPOUNDS}
        if name.isalpha() and len(name) > 1 and name not in ("km", "in", "sq", "cu")
    ),
    key=len,
    reverse=True,
)
_BARE_UNIT = "|".join(_BARE_NAMES)
_TEXT = r"\\text\{(?:[^{}]|\{[^{}]*\})*\}"
_EXPONENT = r"(?:\s*\^\s*\{\s*-?[0-9]\s*\})?"
_TAIL = re.compile(
    rf"(?:\s*(?:/|\\cdot)?\s*{_TEXT}{_EXPONENT})+\s*\Z"
    rf"|(?<=[0-9)}}\s])\s*(?:(?:square|cubic|sq\.?|cu\.?)\s+)?(?:{_BARE_UNIT}|units?)(?:es|s)?{_EXPONENT}"
    rf"(?:\s*(?:/|per)\s*(?:{_BARE_UNIT}|km|[hms])s?{_EXPONENT})?\s*\Z"
    r"|\s*\\pmod\s*\{[^{}]*\}\s*\Z"
    r"|\s*(?:%|\bper ?cent(?:age)?|\bpct)\s*\Z"
    rf"|\s*\^\{{\\circ\}}\s*(?:[CF]|{_TEXT})?\s*\Z|\s*(?:\\\$|[€£¥¢])\s*\Z"
)
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_CURRENCY = re.compile(r"([-+]?)\s*(\\\$|[€£¥])\s*")
_TOKEN = re.compile(r"(/|per\b)|([A-Za-z$€£¥¢\\%]+|\^\{\\circ\})(?:\^\{?(-?[0-9])\}?)?")


@dataclass(frozen=True)
class Unit:
    """A unit: how many of its kind's first unit it is, and what kind that is, such as (("length", 2),).

    One that is not in the table has no kind but its spelling.
    """

    factor: Fraction
    kind: tuple[tuple[str, int], ...]


PERCENT = Unit(Fraction(1, 100), (("%", 1),))
DEGREE = Unit(Fraction(1), (("angle", 1),))


def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""Split a cleaned answer into its value and its unit; the unit is None without one.

    >>> split_unit(r"15\text{ cm}^{2}")
    ('15', Unit(factor=Fraction(1, 10000), kind=(('length', 2),)))
    >>> split_unit(r"\$5"), split_unit("6m")
    (('5', Unit(factor=Fraction(1, 1), kind=(('money', 1),))), ('6m', None))
    """
    unit, value = "", text
    if match := _CURRENCY.match(text):
        unit, value = match[2], match[1] + text[match.end() :]
    if (match := _TAIL.search(value)) and value[: match.start()].strip():
        tail = re.sub(r"\\text\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", match[0]).replace(r"\cdot", " ")
        tail = re.sub(r"\s+(?=\^\{-?[0-9])", "", tail).strip()
        is_name = not _NO_UNITS.search(tail.lower()) and tail.count(" ") < _MAX_WORDS
        is_argument = tail.startswith("^") and _TRIGONOMETRY.search(value)  # of sin 30 degrees
        if not is_name or is_argument or (unit and not re.fullmatch("dollars?|USD|euros?", tail)):
            return text, None
        unit, value = unit or tail, value[: match.start()].strip()
    return (value, _parse(unit)) if unit else (text, None)


def _parse(text: str) -> Unit | None:
    if text.lower() in _PERCENT:
        return PERCENT
    label = " ".join(
        word.lower().removesuffix("s") if word.isalpha() and len(word) > 3 else word for word in text.split()
    )
    if label in _NEUTRAL:
        return None
    unknown = Unit(Fraction(1), ((label, 0),))
    factor, kinds, sign, power = Fraction(1), dict[str, int](), 1, 1
    rest = " ".join(_COMPOUNDS.get(word, word) for word in text.replace("\\,", " ").split())
    position = 0
    for token in _TOKEN.finditer(rest):
        if rest[position : token.start()].strip(" .*()-"):
            return unknown
        position = token.end()
        if token[1]:
            sign = -1
            continue
        word = token[2]
        if word in _POWERS:
            if word in ("squared", "cubed"):
                return unknown
            power = _POWERS[word]
            continue
        lower = word.lower() if len(word) > 3 else word  # MW is not mW
        known = _TABLE.get(word) or _TABLE.get(lower) or _TABLE.get(lower.removesuffix("s"))
        if known is None or known[1] == 0:
            return unknown
        exponent = sign * power * int(token[3] or 1)
        factor *= known[1] ** exponent
        kinds[known[0]] = kinds.get(known[0], 0) + exponent
        power = 1
    if rest[position:].strip(" .*()-") or power != 1:
        return unknown
    return Unit(factor, tuple(sorted((kind, exponent) for kind, exponent in kinds.items() if exponent)))
