"""The page's file: template, style sheet and scripts of `assets/` with the data, in one piece."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from ktae.extras import require

# In the order in which they are run.
_SCRIPTS = ("dom.js", "curves.js", "prompts.js", "group.js", "tokens.js", "main.js")


def page_html(title: str, report: dict[str, Any], packed: list[str]) -> str:
    """The page as one HTML text that loads nothing: its content security policy allows its own script and style only.

    Args:
        title: of the window.
        report: what `main.js` reads: title, source, summary, notes, curves, evaluation, prompts, first.
        packed: the groups, in the order of `report["prompts"]`.
    """
    assets = files("ktae.report") / "assets"
    style = (assets / "page.css").read_text()
    script = '"use strict";\n' + "".join((assets / name).read_text() for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = require("jinja2", extra="report").Environment(autoescape=True)
    return environment.from_string((assets / "page.html.j2").read_text()).render(
        policy=policy, title=title, style=style, script=script, report=embedded(report), groups=embedded(packed)
    )


def embedded(value: Any) -> str:
    r"""JSON for a script element: no character that HTML or JavaScript could take for its own.

    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
