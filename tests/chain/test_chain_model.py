"""The shipped starting model and its tokenizer."""

import pytest
from datasets import Dataset

from ktae.chain import problems as chain
from ktae.chain.labels import Label, label_steps
from ktae.chain.model import MAX_COMPLETION, load
from ktae.chain.problems import Problem
from ktae.models.generate import answer

# Accuracy of the shipped checkpoint on the first 200 test problems.
GREEDY_BAND, SAMPLED_BAND = (0.38, 0.50), (0.33, 0.46)


def test_one_word_is_one_token_and_decoding_gives_the_words_back():
    _, tokenizer = load()
    prompt, words = chain.test_problems()[0]["prompt"], [word for word in tokenizer.get_vocab() if word[0] != "<"]
    prompt_ids = tokenizer(prompt)["input_ids"]
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(prompt_ids) == ["<bos>", *prompt.split()]
    assert len(ids) == len(set(ids)) == len(words) == 169
    whole = [*prompt_ids, *ids, tokenizer.eos_token_id]
    assert tokenizer.decode(whole) == f"<bos> {prompt} {' '.join(words)} <eos>"
    assert tokenizer.decode(whole, skip_special_tokens=True) == f"{prompt} {' '.join(words)}"


def test_the_tokenizer_pads_on_the_left_and_refuses_unknown_words():
    tokenizer = load()[1]
    batch = tokenizer(["5 S1 +5 ?", "5 S1 +5 S2 *9 ?"], padding=True)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0])[:4] == ["<pad>", "<pad>", "<bos>", "5"]
    assert [sum(mask) for mask in batch["attention_mask"]] == [5, 7]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    with pytest.raises(Exception, match="UNK"):
        tokenizer("5 S1 +13 ?")


@pytest.mark.slow
def test_the_shipped_checkpoint_is_as_good_as_its_readme_says():
    rows = Dataset.from_list(chain.test_problems()[:200])
    greedy, sampled = (
        answer(*load(), rows, chain.exact_match, max_completion_length=MAX_COMPLETION, samples=samples, seed=1)
        for samples in (None, 1)
    )
    assert GREEDY_BAND[0] <= sum(a.reward for a in greedy) / 200 <= GREEDY_BAND[1]
    assert SAMPLED_BAND[0] <= sum(a.reward for a in sampled) / 200 <= SAMPLED_BAND[1]
    assert 31.5 < sum(a.length for a in sampled) / 200 < 35.5
    # Its mistakes are the teacher's: wrong results, hardly ever anything else.
    results = others = 0
    for a in sampled:
        labels = label_steps(Problem.from_prompt(rows[a.problem]["prompt"]), a.completion)
        if Label.SLIP in labels:
            is_result = a.completion.split()[labels.index(Label.SLIP) - 1] == "="
            results, others = results + is_result, others + (not is_result)
    assert results > 20 * others
    assert results > 0
