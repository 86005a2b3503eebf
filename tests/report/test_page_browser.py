"""The report in a real browser: what it shows and what it lets one do."""

import pytest
import torch
from page_browser import KEYS, Page, row
from saved import save
from torch.nn.utils.rnn import pad_sequence

from ktae import explain
from ktae.cli import main
from ktae.files.tokens import Words
from ktae.pictures.style import CREDIT, DARK_CREDIT

pytestmark = pytest.mark.slow

SIX = "How much is two times three?"
ROWS = [
    row("six", "first 2 * 3 = 6\nso the answer is 6", 1.0, SIX),
    row("six", "that is 6, the answer is 6", 1.0, SIX),
    row("six", "first 2 + 3 = 5\n\tso the answer is 5", 0.0, SIX),
    row("six", "maybe the answer is 23", 0.0, SIX),
    row("six", "", None, SIX),
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
    ids = [torch.tensor(Words().encode(row["completion"]), dtype=torch.int64) for row in ROWS[:5]]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0, float("nan")])
    return explain(pad_sequence(ids, batch_first=True), mask, rewards, torch.zeros(5, dtype=torch.int64))


def test_prompts_and_their_rollouts_token_by_token(driver, small):
    page = Page(driver, small)
    assert page.driver.title == "rollouts.jsonl"
    assert page.texts("#summary dd")[:2] == ["3", "10"]
    for number, saved in enumerate(ROWS[:5]):
        words = Words().texts([], saved["completion"])
        assert page.texts(f".tokens[data-rollout='{number}'] [data-token]") == words
    assert page.texts(".rollout .verdict") == ["correct"] * 2 + ["incorrect"] * 2 + ["not scored"]
    page.choose(2)
    assert "What is graded?" in page.text("#chosen .prompt")
    assert "mean reward 0.5" in page.text("#chosen")
    page.choose(1)
    assert "All 2 scored rollouts are correct: there is nothing to compare" in page.text("#keytokens")
    assert not page.all("#keytokens table")
    assert [row.get_attribute("data-index") for row in page.all("#list [aria-current=true]")] == ["1"]
    assert page.is_well()


def test_hover_shows_what_explain_says(driver, small, table):
    page = Page(driver, small)
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
            expected, card = table.rows()[unit], page.card()
            card |= zip(("tf_correct", "tf_incorrect"), card["tf"].split(" / "), strict=True)
            numbers = card.keys() & expected.keys()
            assert len(numbers) == 14
            for name in numbers:
                assert float(card[name]) == pytest.approx(expected[name], rel=5e-3, abs=5.1e-4), name
            advantage = float(card["advantage"])
            assert advantage == pytest.approx(0.866 * (1 if number < 2 else -1), abs=1e-3)
            assert float(card["sum"]) == pytest.approx(advantage + expected["value"], abs=1.1e-3)
            extreme = expected["fisher_p"] == 1 and abs(expected["value"]) > 0.99
            assert bool(page.all("#card .remark")) == extreme
    assert looked_at == set(range(len(table)))


def shades(page, rollout):
    """The class of each token of a rollout that says its colour: c5 ... c1, b1 ... b5, or ""."""
    names = [token.get_attribute("class").split() for token in page.tokens(rollout)]
    return [next((name for name in of_token if name[0] in "cb" and name[1:].isdigit()), "") for of_token in names]


def test_colours_and_kinds_of_rollouts(driver, small, table):
    page = Page(driver, small)
    values = [float(table.value[unit]) for unit in table.unit_index[0, : len(page.tokens(0))]]
    signs = [shade[:1] for shade in shades(page, 0)]
    assert signs == ["" if abs(value) < 0.05 else "c" if value > 0 else "b" for value in values]
    page.radio("view", "advantage")
    assert (set(shades(page, 0)), set(shades(page, 2))) == ({"c5"}, {"b5"})
    page.radio("view", "sum")
    assert len(set(shades(page, 0))) > 1
    assert all(shade.startswith("c") for shade in shades(page, 0))
    assert "1.87" in page.text("#legend")
    for value, kinds in (("correct", (1, 0, 0)), ("incorrect", (0, 1, 0)), ("all", (1, 1, 1))):
        page.radio("show", value)
        shown = [section.is_displayed() for section in page.all(".rollout")]
        assert shown == [bool(kinds[kind]) for kind in (0, 0, 1, 1, 2)]


def test_key_tokens_lead_to_their_places(driver, small, table):
    page = Page(driver, small, width=800)
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
    uses = [int(text) for text in page.texts("#keytokens tbody td:last-child")]
    assert uses == sorted(table.occurrences.tolist(), reverse=True)


def test_cards_by_keyboard_and_click(driver, small):
    page = Page(driver, small)
    page.script("document.querySelector('.tokens').focus()")
    page.keys("right", "right", "right", "left")
    page.wait(lambda: page.one("#card").is_displayed())
    assert page.text("#card .quiet").endswith("rollout 1, token 2")
    page.keys("escape")
    page.wait(lambda: not page.one("#card").is_displayed())
    first, second, *_ = page.tokens(0)
    page.hover(first)
    assert not page.all("#card.pinned")
    second.click()
    assert page.all("#card.pinned")
    page.hover(first)
    assert page.text("#card .quiet").endswith("token 2")  # a pinned card stays
    for last in (first, page.one("#chosen .prompt")):
        first.click()
        assert page.text("#card .quiet").endswith("token 1")
        last.click()
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
    assert page.texts(".hit") == [" is", " 6", " is", " 6", " is", " 6"]
    assert look_for("nowhere", "0 prompts") == []
    search.clear()
    search.send_keys(" ", KEYS["backspace"])
    page.wait(lambda: len(page.all("#list button")) == 3 and not page.all(".hit"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_narrow_and_dark(driver, small, width, dark):
    page = Page(driver, small, width=width, height=740, dark=dark)
    token = page.one(".tokens [data-token]")
    page.script("arguments[0].scrollIntoView({block: 'center'})", token)
    token.click()
    page.wait(lambda: page.one("#card").is_displayed())
    box = page.script("document.getElementById('card').getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] < box["right"] <= width
    assert 0 <= box["top"] < box["bottom"] <= 740
    spot = page.script("document.activeElement.getBoundingClientRect().toJSON()")
    beside = spot["right"] <= box["left"] or spot["left"] >= box["right"]
    assert beside or spot["bottom"] <= box["top"] or spot["top"] >= box["bottom"], "the card covers its token"
    page.one("#card [aria-label=Close]").click()
    assert not page.one("#card").is_displayed()
    assert (max(color(page, "body", "backgroundColor")) < 60) == dark
    credit = list(bytes.fromhex((DARK_CREDIT if dark else CREDIT)[1:]))
    assert color(page, ".swatches .c5", "borderBottomColor") == credit
    assert page.is_well()


def color(page, selector, name):
    parts = page.script("getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, name)
    return [int(part) for part in parts.partition("(")[2].rstrip(")").split(",")[:3]]
