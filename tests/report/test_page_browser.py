"""The report in a real browser: what it shows, what it lets one do, and that hostile rollouts stay text."""

import json
import subprocess
import sys

import pytest
import torch
from page_browser import Page, start
from torch.nn.utils.rnn import pad_sequence

from ktae import explain
from ktae.cli import main
from ktae.report.page_write import write_report
from ktae.report.rollouts import load_groups
from ktae.report.tokens import Words

KEYS = {"left": "\ue012", "right": "\ue014", "escape": "\ue00c"}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(group, completion, reward, prompt=""):
    return {"group": group, "prompt": prompt or f"What is {group}?", "completion": completion, "reward": reward}


ROWS = [
    row("six", "first 2 * 3 = 6\nso the answer is 6", 1.0, "How much is two times three?"),
    row("six", "that is 6, the answer is 6", 1.0, "How much is two times three?"),
    row("six", "first 2 + 3 = 5\n\tso the answer is 5", 0.0, "How much is two times three?"),
    row("six", "maybe the answer is 23", 0.0, "How much is two times three?"),
    row("six", "", None, "How much is two times three?"),
    row("all", "right", 1.0),
    row("all", "right again", 1.0),
    row("graded", "half a rabbit", 0.5),
    row("graded", "no hare", 0.0),
    row("graded", "whole rabbit", 1.0),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    path = save(folder / "rollouts.jsonl", ROWS)
    assert main(["report", str(path), "--tokenizer", "words", "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def table():
    """What `ktae.explain` says about the group "six"."""
    words, rows = Words(), [row for row in ROWS if row["group"] == "six"]
    ids = [torch.tensor(words.encode(row["completion"]), dtype=torch.int64) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    rewards = torch.tensor([float("nan") if row["reward"] is None else row["reward"] for row in rows])
    padded = pad_sequence(ids, batch_first=True)
    return explain(padded, mask, rewards, torch.zeros(len(rows), dtype=torch.int64))


def words_of(completion):
    return Words().texts(Words().encode(completion), completion)


def test_it_opens_without_complaints(driver, small):
    page = Page(driver, small)
    page.one("#chosen h3")
    assert page.driver.title == "rollouts.jsonl"
    assert page.script("[...document.querySelectorAll('#summary dd')].map((e) => e.textContent)")[:2] == ["3", "10"]
    assert [button.get_attribute("data-index") for button in page.all("#list button")] == ["0", "1", "2"]
    assert page.complaints() == []


def test_the_rollouts_are_shown_token_by_token(driver, small):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    for number, row in enumerate(ROWS[:5]):
        shown = [page.script("arguments[0].textContent", token) for token in page.tokens(number)]
        assert shown == words_of(row["completion"])
    headings = [heading.text for heading in page.all(".rollout h4")]
    assert [("incorrect" in text, "not scored" in text) for text in headings] == [
        *[(False, False)] * 2,
        *[(True, False)] * 2,
        (False, True),
    ]


def test_choosing_a_prompt(driver, small):
    page = Page(driver, small)
    page.choose(2)
    assert "What is graded?" in page.text("#chosen .prompt")
    assert len(page.all(".rollout")) == 3
    assert "mean reward 0.5" in page.text("#chosen")
    page.choose(1)
    assert "All scored rollouts are correct" in page.text("#keytokens")
    assert page.all("#list [aria-current=true]")[0].get_attribute("data-index") == "1"


def test_hover_shows_what_explain_says(driver, small, table):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    looked_at = set()
    for number in range(4):
        for place, token in enumerate(page.tokens(number)):
            unit = int(table.unit_index[number, place])
            if unit in looked_at:
                continue
            looked_at.add(unit)
            page.hover(token)
            expected = {name: column[unit] for name, column in table.columns().items()}
            page.wait(
                lambda place=place, number=number: (
                    f"rollout {number + 1}, token {place + 1}" in page.text("#card .quiet")
                )
            )
            card = page.card()
            for name in "abcd":
                assert int(card[name]) == expected[name]
            for name in ("fisher_p", "permutation_p", "adjusted_p", "information_gain", "direction"):
                assert float(card[name]) == pytest.approx(expected[name], rel=5e-3), name
            for name in ("cohen_h", "value"):
                assert float(card[name]) == pytest.approx(expected[name], abs=5.1e-4), name
            assert int(card["occurrences"]) == expected["occurrences"]
            for shown, name in zip(card["tf"].split(" / "), ("tf_correct", "tf_incorrect"), strict=True):
                assert float(shown) == pytest.approx(expected[name], rel=5e-3)
            advantage = float(card["advantage"])
            assert advantage == pytest.approx(0.866 * (1 if number < 2 else -1), abs=1e-3)
            assert float(card["sum"]) == pytest.approx(advantage + expected["value"], abs=1.1e-3)
    assert looked_at == set(range(len(table)))
    assert page.complaints() == []


def shades(page, rollout):
    """The class of each token of a rollout that says its colour: c5 ... c1, b1 ... b5, or ""."""
    names = [token.get_attribute("class").split() for token in page.tokens(rollout)]
    return [next((name for name in of_token if name[0] in "cb" and name[1:].isdigit()), "") for of_token in names]


def test_colour_by_value_advantage_or_sum(driver, small, table):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    values = [float(table.value[unit]) for unit in table.unit_index[0, : len(page.tokens(0))]]
    signs = [shade[:1] for shade in shades(page, 0)]
    assert signs == ["" if abs(value) < 0.05 else "c" if value > 0 else "b" for value in values]
    assert {"c", ""} <= set(signs)
    page.radio("view", "advantage")
    assert set(shades(page, 0)) == {"c5"}
    assert set(shades(page, 2)) == {"b5"}
    page.radio("view", "sum")
    assert len(set(shades(page, 0))) > 1
    assert all(shade.startswith("c") for shade in shades(page, 0))
    assert "1.87" in page.text("#legend")
    page.radio("view", "value")
    assert [shade[:1] for shade in shades(page, 0)] == signs


def test_only_correct_or_incorrect_rollouts(driver, small):
    page = Page(driver, small)
    page.one(".tokens [data-token]")

    def shown():
        return [section.is_displayed() for section in page.all(".rollout")]

    assert shown() == [True] * 5
    page.radio("show", "correct")
    assert shown() == [True, True, False, False, False]
    page.radio("show", "incorrect")
    assert shown() == [False, False, True, True, False]
    page.radio("show", "all")
    assert shown() == [True] * 5


def test_key_tokens_lead_to_their_places(driver, small, table):
    page = Page(driver, small)
    page.one("#keytokens tbody tr")
    unit = next(i for i in range(len(table)) if table.occurrences[i] > 1 and table.a[i] == 0)
    places = list(zip(*(axis.tolist() for axis in (table.unit_index == unit).nonzero()), strict=True))
    page.radio("show", "correct")
    page.one(f"#keytokens button[data-unit='{unit}']").click()

    def focused():
        rollout = page.script("document.activeElement.closest('.tokens')?.dataset.rollout")
        return None if rollout is None else (int(rollout), int(page.script("document.activeElement.dataset.token")))

    for place in [*places, places[0]]:
        page.wait(lambda place=place: focused() == place)
        assert page.driver.switch_to.active_element.is_displayed()
        page.one("#card [aria-label='Next place']").click()
    assert len(page.all(".same")) == len(places)
    rows = len(page.all("#keytokens tbody tr"))
    page.one("#keytokens .unfold").click()
    assert len(page.all("#keytokens tbody tr")) == len(table) > rows
    page.all("#keytokens th button")[-1].click()
    uses = [
        int(cells[-1].text) for cells in (tr.find_elements("tag name", "td") for tr in page.all("#keytokens tbody tr"))
    ]
    assert uses == sorted(table.occurrences.tolist(), reverse=True)


def test_the_keyboard_moves_from_token_to_token(driver, small):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    page.script("document.querySelector('.tokens').focus()")
    page.keys(KEYS["right"], KEYS["right"], KEYS["right"], KEYS["left"])
    page.wait(lambda: page.one("#card").is_displayed())
    assert page.text("#card .quiet").endswith("rollout 1, token 2")
    page.keys(KEYS["escape"])
    page.wait(lambda: not page.one("#card").is_displayed())


def test_a_card_is_pinned_by_a_click_and_let_go_by_another(driver, small):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    first, second, *_ = page.tokens(0)
    page.hover(first)
    assert not page.all("#card.pinned")
    second.click()
    assert page.all("#card.pinned")
    page.hover(first)
    assert page.text("#card .quiet").endswith("token 2")
    first.click()
    assert page.text("#card .quiet").endswith("token 1")
    first.click()
    assert not page.one("#card").is_displayed()
    first.click()
    page.one("#chosen .prompt").click()
    assert not page.one("#card").is_displayed()


def test_search(driver, small):
    page = Page(driver, small)
    search = page.one("#search")

    def look_for(query, found):
        search.clear()
        search.send_keys(query)
        page.wait(lambda: page.text("#found") == f"{found} with “{query}”", f"{query}: {page.text('#found')}")
        return [button.get_attribute("data-index") for button in page.all("#list button")]

    assert look_for("TWO TIMES", "1 prompt") == ["0"]
    assert look_for("rabbit", "1 prompt") == ["2"]
    assert look_for("a", "3 prompts") == ["0", "1", "2"]
    assert look_for("is 6", "1 prompt") == ["0"]
    marked = [page.script("arguments[0].textContent", token) for token in page.all(".hit")]
    assert marked == [" is", " 6", " is", " 6", " is", " 6"]
    assert look_for("nowhere", "0 prompts") == []
    search.clear()
    search.send_keys(" \ue003")
    page.wait(lambda: len(page.all("#list button")) == 3 and not page.all(".hit"))


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


class Characters:
    """A token a character."""

    size = None

    def encode(self, text):
        return [ord(character) for character in text]

    def texts(self, token_ids, text):
        return list(text)


class Whole(Characters):
    """One token a text."""

    def encode(self, text):
        return [1]

    def texts(self, token_ids, text):
        return [text]


def test_hostile_text_stays_text(driver, tmp_path):
    rows = [row(text, text, float(i % 2), text) for text in HOSTILE for i in range(2)]
    rows += [row("together", "\n".join(HOSTILE), 1.0), row("together", " ".join(reversed(HOSTILE)), 0.0)]
    folder = tmp_path / "<b onclick=alert(1)>&lt;"
    folder.mkdir()
    path = save(folder / "{{ 7 * 7 }}.jsonl", rows)
    groups, malformed = load_groups(path)
    assert len(groups) == len(HOSTILE) + 1
    assert not malformed

    out = folder / "report.html"
    for tokenizer in (Characters(), Whole()):
        named = {f"{name} {HOSTILE[k % len(HOSTILE)]}": group for k, (name, group) in enumerate(groups.items())}
        write_report(named, out, tokenizer=tokenizer, title=HOSTILE[1], source="\n".join(HOSTILE), notes=HOSTILE)
        page = Page(driver, out)
        elements = page.script("document.querySelectorAll('script, img, style, iframe, svg, form, object').length")
        for index, (name, rollouts) in enumerate(groups.items()):
            page.choose(index)
            page.one(".tokens [data-token]")
            for number, rollout in enumerate(rollouts):
                # Characters without a glyph are named; all others are there as they are.
                shown = page.text(f".tokens[data-rollout='{number}'] .chunk")
                assert named_characters(rollout.text) == shown, name
            page.one(".tokens [data-token]").click()
            page.one("#keytokens button[data-unit]")
        assert (
            page.script("document.querySelectorAll('script, img, style, iframe, svg, form, object').length") == elements
        )
        assert page.script("window.hacked") is None
        assert page.script("document.title") == HOSTILE[1]
        assert page.script("document.getElementById('title').textContent") == HOSTILE[1]
        assert page.sideways() == 0
        assert page.complaints() == []
    page.picture("hostile")


def named_characters(text):
    """What the page shows for a text; see UNSEEN in dom.js."""
    shown = []
    for character in text:
        code = ord(character)
        if character in " \n\t":
            shown.append(character)
        elif (
            code < 0x20
            or 0x7F <= code <= 0xA0
            or code in (0xAD, 0x61C, 0x180E, 0xFEFF)
            or any(first <= code <= last for first, last in ((0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F)))
        ):
            shown.append(f"U+{code:04X}")
        else:
            shown.append(character)
    return "".join(shown)


def test_a_rollout_of_100000_tokens(driver, tmp_path):
    long = [f" w{k % 500}" if k % 40 else "\n" for k in range(99_999)] + [" end"]
    rows = [row("long", "".join(long), 1.0), row("long", "short", 0.0)]
    numbers = {text: k for k, text in enumerate(dict.fromkeys([*long, "short"]))}
    for line in rows:
        line["token_texts"] = long if line["reward"] else ["short"]
        line["token_ids"] = [numbers[text] for text in line["token_texts"]]
    groups, _ = load_groups(save(tmp_path / "long.jsonl", rows))
    out = tmp_path / "long.html"
    write_report(groups, out, tokenizer=None, title="long", source="long")
    page = Page(driver, out)
    page.one(".tokens [data-token]")
    assert "100,000 tokens" in page.text(".rollout h4")
    assert len(page.tokens(0)) <= 1500
    page.one(".rollout .unfold").click()
    assert len(page.all(".chunk")) > 60
    page.one("#keytokens .unfold").click()
    link = next(b for b in page.all("#keytokens button[data-unit]") if "end" in b.text)
    link.click()
    page.wait(lambda: page.script("document.activeElement.dataset.token") == "99999")
    assert "token 100,000" in page.text("#card .quiet")
    page.wait(lambda: len(page.tokens(0)) < 10_000, "chunks far away are taken down again")
    assert page.complaints() == []


def test_1000_prompts_of_16_rollouts(driver, tmp_path):
    rows = [
        row(f"p{g}", " ".join(f"w{(g * 31 + r * 7 + k * k) % 997}" for k in range(60)), float((g + r) % 3 == 0))
        for g in range(1000)
        for r in range(16)
    ]
    groups, _ = load_groups(save(tmp_path / "many.jsonl", rows))
    out = tmp_path / "many.html"
    written = write_report(
        groups,
        out,
        tokenizer=Words(),
        title="many",
        source="many",
        permutations=0,
    )
    assert written == {"groups": 1000, "kept": 1000, "bytes": out.stat().st_size}
    assert out.stat().st_size < 30_000_000
    page = Page(driver, out)
    page.one(".tokens [data-token]")
    assert len(page.all("#list button")) == 40
    assert page.script("document.querySelectorAll('*').length") < 10_000
    page.one("[aria-label='Next page']").click()
    page.choose(41)
    assert "What is p41?" in page.text("#chosen .prompt")
    page.one("#search").send_keys("p999?")
    page.wait(lambda: page.text("#found") == "1 prompt with “p999?”")
    page.choose(999)
    assert page.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_narrow_and_dark(driver, small, width, dark):
    page = Page(driver, small, width=width, height=740, dark=dark)
    token = page.one(".tokens [data-token]")
    assert page.sideways() == 0
    page.script("arguments[0].scrollIntoView({block: 'center'})", token)
    token.click()
    page.wait(lambda: page.one("#card").is_displayed())
    assert page.sideways() == 0
    box = page.script("document.getElementById('card').getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] < box["right"] <= width
    assert 0 <= box["top"] < box["bottom"] <= 740
    spot = page.script("document.activeElement.getBoundingClientRect().toJSON()")
    beside = spot["right"] <= box["left"] or spot["left"] >= box["right"]
    assert beside or spot["bottom"] <= box["top"] or spot["top"] >= box["bottom"], "the card covers its token"
    page.picture(f"{'dark' if dark else 'light'}-{width}")
    page.one("#card [aria-label=Close]").click()
    assert not page.one("#card").is_displayed()
    light = [int(part) for part in page.script("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")]
    assert (max(light[:3]) < 60) == dark
    ratio = contrast(page, "#chosen .quiet")
    assert ratio >= 4.5, ratio
    assert page.complaints() == []


def contrast(page, selector):
    """The contrast of an element's text on the page's background (WCAG 2)."""

    def luminance(color):
        parts = [int(part) / 255 for part in color[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ink = page.script("getComputedStyle(document.querySelector(arguments[0])).color.match(/\\d+/g)", selector)
    paper = page.script("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
    lighter, darker = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_a_training_run(driver, tmp_path):
    settings = [
        *("--data.train_rows", "64", "--data.test_rows", "20", "--evaluation.samples", "2", "--samples_every", "2"),
        *("--trl.max_steps", "4", "--trl.save_steps", "4", "--trl.max_completion_length", "40"),
        *("--batch.prompts", "2", "--batch.mini_batch", "2", "--batch.per_device", "16"),
    ]
    command = [sys.executable, "-m", "ktae.cli", "train", "quickstart", *settings, "--out", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    run, out = tmp_path / "run", tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    page = Page(driver, out)
    assert page.text("#title") == "quickstart"
    captions = [caption.text for caption in page.all("figcaption")]
    assert captions[:3] == ["Training reward", "Accuracy of the training rollouts", "Mean length, tokens"]
    reward = page.all("figure")[0]
    assert len(reward.find_elements("css selector", "polyline:not(.faint)")) == 2
    results = json.loads((run / "results.json").read_text())
    shown = [
        [cell.text for cell in tr.find_elements("css selector", "th, td")][:4] for tr in page.all(".intervals tbody tr")
    ]
    expected = [
        [
            policy["label"],
            mode,
            f"{policy[mode]['accuracy']:.3f}",
            f"{policy[mode]['low']:.3f} to {policy[mode]['high']:.3f}",
        ]
        for policy in results["policies"].values()
        for mode in ("sampled", "greedy")
    ]
    assert shown[: len(expected)] == expected
    assert len(shown) == len(expected) + len(results["differences"])
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    page.choose(0)
    for number in range(8):
        page.script("document.querySelectorAll('.rollout')[arguments[0]].scrollIntoView()", number)
        page.one(f".tokens[data-rollout='{number}'] [data-token]")
        shown = "".join(page.script("arguments[0].textContent", token) for token in page.tokens(number))
        assert shown == samples[number]["completion"]
    assert not any("No tokenizer" in note.text for note in page.all("#notes .note"))
    assert page.sideways() == 0
    assert page.complaints() == []
    page.picture("run")
