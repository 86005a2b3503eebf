"""Loading models: folders, files inside packages, GGUF."""

import pytest
import torch

from ktae.chain.model import CHECKPOINT
from ktae.models.load import Model, load_model, resolve


def test_folder():
    model, tokenizer = load_model(Model(str(CHECKPOINT)))
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token != tokenizer.eos_token


def test_file_of_a_package():
    assert resolve("python:ktae/chain/weights") == str(CHECKPOINT)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("python:no_such_package/x", "the Python package 'no_such_package' is not installed"),
        ("python:ktae/no/such/file", "no/such/file does not exist"),
    ],
)
def test_missing(path, message):
    with pytest.raises(FileNotFoundError, match=message):
        resolve(path)


def test_tokenizer_without_padding_pads_with_the_end(tmp_path):
    _, tokenizer = load_model(Model(str(CHECKPOINT)))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(CHECKPOINT / file)
    _, tokenizer = load_model(Model(str(tmp_path)))
    assert tokenizer.pad_token == tokenizer.eos_token
