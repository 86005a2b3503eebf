"""The report in a real browser: what it shows and what it lets one do."""

import pytest
import torch
from page_browser import Page, row, save
from torch.nn.utils.rnn import pad_sequence

from ktae import explain
from ktae.cli import main
from ktae.files.tokens import Words
from ktae.pictures.style import CREDIT, DARK_CREDIT

pytestmark = pytest.mark.slow

KEYS = {"left": "\ue012", "right": "\ue014", "escape": "\ue00c"}


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


def test_prompts_and_their_rollouts_token_by_token(driver, small):
    page = Page(driver, small)
    page.one(".tokens [data-token]")
    assert page.driver.title == "rollouts.jsonl"
    assert page.script("[...document.querySelectorAll('#summary dd')].map((e) => e.textContent)")[:2] == ["3", "10"]
    for number, saved in enumerate(ROWS[:5]):
        shown = [page.script("arguments[0].textContent", token) for token in page.tokens(number)]
        assert shown == words_of(saved["completion"])
    verdicts = [heading.text for heading in page.all(".rollout .verdict")]
    assert verdicts == ["correct"] * 2 + ["incorrect"] * 2 + ["not scored"]
    page.choose(2)
    assert "What is graded?" in page.text("#chosen .prompt")
    assert len(page.all(".rollout")) == 3
    assert "mean reward 0.5" in page.text("#chosen")
    page.choose(1)
    assert "All scored rollouts are correct" in page.text("#keytokens")
    assert [row.get_attribute("data-index") for row in page.all("#list [aria-current=true]")] == ["1"]
    assert page.complaints() == []


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
            place_shown = f"rollout {number + 1}, token {place + 1}"
            page.wait(lambda text=place_shown: text in page.text("#card .quiet"))
            expected = table.rows()[unit]
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
            extreme = expected["fisher_p"] == 1 and abs(expected["value"]) > 0.99
            assert bool(page.all("#card .remark")) == extreme
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
    for value, kinds in (("correct", (1, 0, 0)), ("incorrect", (0, 1, 0)), ("all", (1, 1, 1))):
        page.radio("show", value)
        shown = [section.is_displayed() for section in page.all(".rollout")]
        assert shown == [bool(kinds[kind]) for kind in (0, 0, 1, 1, 2)]


def test_key_tokens_lead_to_their_places(driver, small, table):
    page = Page(driver, small, width=800)
    page.one("#keytokens tbody tr")
    heights = page.script("[...document.querySelectorAll('.keys .token')].map((label) => label.offsetHeight)")
    assert max(heights) < 1.5 * min(heights), "a word is broken"
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
    assert contrast(page, "#chosen .quiet") >= 4.5
    border = page.script("getComputedStyle(document.querySelector('.swatches .c5')).borderBottomColor")
    assert border == "rgb({}, {}, {})".format(*bytes.fromhex((DARK_CREDIT if dark else CREDIT)[1:]))
    assert page.complaints() == []


def contrast(page, selector):
    """The contrast of an element's text on the page's background (WCAG 2)."""

    def luminance(of, name):
        script = "getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/\\d+/g)"
        parts = [int(part) / 255 for part in page.script(script, of, name)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(selector, "color"), luminance("body", "backgroundColor")))
    return (lighter + 0.05) / (darker + 0.05)
