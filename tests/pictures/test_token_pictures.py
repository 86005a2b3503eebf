"""The heat map shows every token on its ground and fills its width."""

import itertools

import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb

from ktae.pictures.style import BLAME, CREDIT, MONO
from ktae.pictures.tokens import TokenRow, draw_heatmap

HOSTILE = "$x^2$ \\frac{1 \x1b[2J \N{RIGHT-TO-LEFT OVERRIDE} \N{CJK UNIFIED IDEOGRAPH-6570} <b>&amp; \t\n\n" + "a" * 300
ROWS = [
    TokenRow(["so", " it", " is", "\n", "42"], [0.0, 0.1, 0.0, 0.0, 1.0], True, 0.87),
    TokenRow(["it", " is", " 42"], [0.1, 0.0, 1.0], True, 0.87),
    TokenRow(["so", " it", " is", " 43"], [0.0, 0.1, 0.0, -1.0], False, -0.87),
    TokenRow([HOSTILE], [-0.5], None, 0.0),
]


def parts(figure):
    """The headings and the tokens' texts, each as (x, text)."""
    texts = figure.axes[0].texts
    return [
        [(text.get_position()[0], text.get_text()) for text in texts if (text.get_fontfamily() == [MONO]) == of_token]
        for of_token in (False, True)
    ]


def test_every_token_stands_on_its_ground():
    figure = draw_heatmap(ROWS, shown=8, lines=50)
    headings, tokens = parts(figure)
    assert [heading.split(",")[0] for _, heading in headings] == ["correct", "correct", "incorrect", "unscored"]
    shown = "".join(text for _, text in tokens)
    assert all(part in shown for part in ("so it is\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}42", " 43", "a" * 50))
    assert not {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"} & set(shown)
    grounds = figure.axes[0].patches
    for color in (CREDIT, BLAME):
        tint = [1 - 0.6 * (1 - part) for part in to_rgb(color)]
        assert any(ground.get_facecolor()[:3] == pytest.approx(tint, abs=0.01) for ground in grounds)
    assert max(ground.get_x() + ground.get_width() for ground in grounds) <= figure.axes[0].get_xlim()[1]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:3], ROWS[:2], ROWS[2:3]])
@pytest.mark.parametrize("words", [12, 60])
def test_the_width_is_used_and_correct_rollouts_are_on_the_left(rows, words):
    rows = [TokenRow([" word"] * words, [1.0] * words, row.correct, row.advantage) for row in rows]
    figure = draw_heatmap(rows, shown=8, lines=8)
    headings, tokens = parts(figure)
    width = figure.axes[0].get_xlim()[1]
    assert 0.75 * width <= max(x + len(text) for x, text in tokens)
    for x, heading in headings:
        assert x >= width / 2 if rows[0].correct and not heading.startswith("correct") else x == 0


def test_the_legend_is_short_and_does_not_overlap():
    _, tokens = parts(draw_heatmap([TokenRow(["a", "b"], [-5.205561, 2.0], True, 1.0)], shown=8, lines=8))
    legend = [(x, text.replace("\N{MINUS SIGN}", "-")) for x, text in tokens[-5:]]
    assert [text.strip() for _, text in legend] == ["key-token value", "-5.21 blamed", "-2.6", "2.6", "credited 5.21"]
    assert all(x + len(text) < after for (x, text), (after, _) in itertools.pairwise(legend))


def test_what_is_left_out_is_said():
    headings, _ = parts(draw_heatmap(ROWS, shown=2, lines=1))
    expected = ["correct, advantage +0.87, 1 more token", "incorrect, advantage \N{MINUS SIGN}0.87"]
    assert [heading for _, heading in headings] == expected
