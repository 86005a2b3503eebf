"""The report in a real browser: hostile rollouts stay text, large ones are drawn in parts, many are listed in pages."""

import re

import pytest
from page_browser import Page, row
from saved import save

from ktae.config import KTAEConfig
from ktae.files.reading import load_groups
from ktae.files.tokens import Words
from ktae.report.page import pack, write_page

pytestmark = pytest.mark.slow

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1><style>*{display:none}</style>",
    "<!-- <script> --!> ]]> <![CDATA[",
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 1} {{constructor.constructor('window.hacked=1')()}}",
    "\x00\x01\x07\x1b[31mred\x7f\x85\x9b",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f\u200b\ufeff \u2028 \u2029 \u00ad",
    "&lt;b&gt; &amp;amp; &#x3c; %3Cscript%3E javascript:window.hacked=1",
    "\\u003c\\\"'`",
    "\ud83d\ude00 e\u0301 z\u0351\u036b\u0343 \u4f60\u597d \u0627\u0644\u0633\u0644\u0627\u0645",
]


def write_report(groups, out, tokenizer, *, permutations=100, **head):
    packed = [pack(name, rows, tokenizer, KTAEConfig(), permutations=permutations) for name, rows in groups.items()]
    write_page(out, packed, **{"notes": [], "source": "", **head})


class Pieces:
    """A token a character, or one token a text."""

    size = None

    def __init__(self, whole):
        self.whole = whole

    def encode(self, text):
        return [1] if self.whole else [ord(character) for character in text]

    def texts(self, token_ids, text):
        return [text] if self.whole else list(text)


def test_hostile_text_stays_text(driver, tmp_path):
    rows = [row(text, text, float(i % 2), text) for text in HOSTILE for i in range(2)]
    rows += [row("together", "\n".join(HOSTILE), 1.0), row("together", " ".join(reversed(HOSTILE)), 0.0)]
    folder = tmp_path / "<b onclick=alert(1)>&lt;"
    folder.mkdir()
    path = save(folder / "{{ 7 * 7 }}.jsonl", rows)
    groups, malformed = load_groups(path)
    assert (len(groups), malformed) == (len(HOSTILE) + 1, [])
    elements = "document.querySelectorAll('script, img, style, iframe, svg, form, object').length"

    out = folder / "report.html"
    for tokenizer in (Pieces(whole=False), Pieces(whole=True)):
        named = {f"{name} {HOSTILE[k % len(HOSTILE)]}": group for k, (name, group) in enumerate(groups.items())}
        write_report(named, out, tokenizer, title=HOSTILE[1], source="\n".join(HOSTILE), notes=HOSTILE)
        page = Page(driver, out)
        before = page.script(elements)
        for index, (name, rollouts) in enumerate(groups.items()):
            page.choose(index)
            page.one(".tokens [data-token]")
            for number, rollout in enumerate(rollouts):
                # Characters without a glyph are named; all others are there as they are.
                assert named_characters(rollout.parts[0][0]) == page.text(f".tokens[data-rollout='{number}'] .chunk"), (
                    name
                )
            page.one(".tokens [data-token]").click()
            page.one("#keytokens button[data-unit]")
        assert page.script(elements) == before
        assert page.script("window.hacked") is None
        assert page.script("document.title") == page.text("#title") == HOSTILE[1]
        assert page.is_well()


def named_characters(text):
    """What the page shows for a text; see UNSEEN in dom.js."""
    unseen = r"[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u180e\ufeff\u200b-\u200f\u2028-\u202e\u2060-\u206f]"
    return re.sub(unseen, lambda found: f"U+{ord(found[0]):04X}", text)


def test_a_rollout_of_100000_tokens(driver, tmp_path):
    long = [f" w{k % 500}" if k % 40 else "\n" for k in range(99_999)] + [" end"]
    rows = [row("long", "".join(long), 1.0), row("long", "short", 0.0)]
    numbers = {text: k for k, text in enumerate(dict.fromkeys([*long, "short"]))}
    for line in rows:
        line["token_texts"] = long if line["reward"] else ["short"]
        line["token_ids"] = [numbers[text] for text in line["token_texts"]]
    groups, _ = load_groups(save(tmp_path / "long.jsonl", rows))
    out = tmp_path / "long.html"
    write_report(groups, out, None, title="long")
    page = Page(driver, out)
    assert "100,000\N{NO-BREAK SPACE}tokens" in page.text(".rollout h4")
    assert len(page.tokens(0)) <= 1500
    page.one(".rollout .unfold").click()
    assert len(page.all(".chunk")) > 60
    page.one("#keytokens .unfold").click()
    link = next(b for b in page.all("#keytokens button[data-unit]") if "end" in b.text)
    link.click()
    page.wait(lambda: page.script("document.activeElement.dataset.token") == "99999")
    assert "token 100,000" in page.text("#card .quiet")
    page.wait(lambda: len(page.tokens(0)) < 10_000, "chunks far away are taken down again")
    assert page.is_well()


def test_1000_prompts_of_16_rollouts(driver, tmp_path):
    rows = [
        row(f"p{g}", " ".join(f"w{(g * 31 + r * 7 + k * k) % 997}" for k in range(60)), float((g + r) % 3 == 0))
        for g in range(1000)
        for r in range(16)
    ]
    groups, _ = load_groups(save(tmp_path / "many.jsonl", rows))
    out = tmp_path / "many.html"
    write_report(groups, out, Words(), title="many", permutations=0)
    assert out.stat().st_size < 30_000_000
    page = Page(driver, out)
    assert len(page.all("#list button")) == 40
    assert page.script("document.querySelectorAll('*').length") < 10_000
    page.one("[aria-label='Next page']").click()
    page.choose(41)
    assert "What is p41?" in page.text("#chosen .prompt")
    page.one("#search").send_keys("p999?")
    page.wait(lambda: page.text("#found") == "1 prompt with “p999?”")
    page.choose(999)
    assert page.is_well()
