"""Tokenizers for reports: words, and real byte-level and sentencepiece-like ones, trained here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktae.files.tokens import ModelTokenizer, Words, load_tokenizer

TEXTS = ["the sum is 4, so the answer is 4", "a sum: 12 + 30 = 42", "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve"]


def trained(model, pre_tokenizer, decoder, **settings):
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    whole = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    whole.pre_tokenizer, whole.decoder = pre_tokenizer, decoder
    whole.train_from_iterator(TEXTS * 10, tokenizers.trainers.BpeTrainer(show_progress=False, **settings))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole)


@pytest.fixture(scope="module")
def byte_level():
    tokenizers = pytest.importorskip("tokenizers")
    cut, joined = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    return trained({}, cut, joined, vocab_size=300, initial_alphabet=cut.alphabet(), special_tokens=["<|end|>"])


@pytest.fixture(scope="module")
def sentencepiece_like():
    """Drops the space of the first token when it decodes, as Llama's does."""
    tokenizers = pytest.importorskip("tokenizers")
    cut, joined = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    return trained({"unk_token": "<unk>"}, cut, joined, vocab_size=80, special_tokens=["<unk>"])


@given(st.text())
def test_words_make_up_the_text(text):
    words = Words()
    texts = words.texts([], text)
    assert "".join(texts) == text
    assert len(words.encode(text)) == len(texts)
    assert all(0 <= token_id < 2**63 for token_id in words.encode(text))


@pytest.mark.parametrize(
    ("text", "expected", "told"),
    [
        ("所以答案是 5。", [*"所以答案是", " 5", "。"], 1),
        ("x是5y", ["x", "是", "5y"], 1),
        ("\u0e14\u0e35\u0e21\u0e32\u0e01", ["\u0e14\u0e35", "\u0e21", "\u0e32", "\u0e01"], 1),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 ok", ["\u0939\u093f\u0928\u094d\u0926\u0940", " ok"], 0),
        ("e\u0301t\u00e9 \U0001f468\u200d\U0001f469", ["e\u0301t\u00e9", " \U0001f468\u200d\U0001f469"], 0),
    ],
    ids=["Chinese", "mixed", "Thai", "Hindi, which has spaces", "graphemes"],
)
def test_scripts_without_spaces_are_cut_by_grapheme(text, expected, told, capsys):
    words = Words()
    assert words.texts([], text) == expected
    assert len(words.encode(text) + words.encode(text)) == 2 * len(expected)
    assert capsys.readouterr().err.count("scripts without spaces") == told


def test_a_word_is_the_same_unit_wherever_it_stands():
    assert len(set(Words().encode("so\n so\tso so"))) == 1
    assert len(set(Words().encode("so So s 50 o"))) == 5


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_token_texts_make_up_the_text(byte_level, text):
    tokenizer = ModelTokenizer(byte_level)
    ids = tokenizer.encode(text)
    texts = tokenizer.texts(ids, None)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_parts_of_a_character_are_shown_with_the_last_of_them(byte_level):
    tokenizer = ModelTokenizer(byte_level)
    snowman, end = tokenizer.encode("\N{SNOWMAN}"), byte_level.convert_tokens_to_ids("<|end|>")
    assert tokenizer.texts([*snowman, *tokenizer.encode("!"), end], None) == ["", "", "\N{SNOWMAN}", "!", "<|end|>"]
    so = tokenizer.encode(" so")
    texts = tokenizer.texts([*snowman[:2] * 10, *so], None)  # no characters
    assert len(texts) == 20 + len(so)
    assert "".join(texts).endswith(" so")


@pytest.mark.parametrize("text", TEXTS[:2])
def test_spaces_that_decoding_drops_at_the_start(sentencepiece_like, text):
    tokenizer = ModelTokenizer(sentencepiece_like)
    texts = tokenizer.texts(tokenizer.encode(text), None)
    assert "".join(texts) == text
    assert any(piece.startswith(" ") for piece in texts)


def test_loading(byte_level, tmp_path):
    byte_level.save_pretrained(tmp_path / "tokenizer")
    assert load_tokenizer(str(tmp_path / "tokenizer")).encode("the sum") == ModelTokenizer(byte_level).encode("the sum")
    assert isinstance(load_tokenizer("words"), Words)
    with pytest.raises(ValueError, match="--tokenizer must be words or a tokenizer's name or path, got /none"):
        load_tokenizer("/none")
