"""Loading models: folders, files inside packages, GGUF."""

import pytest
import torch

from ktae.chain.model import CHECKPOINT
from ktae.models.load import Model, check_available, load_model, resolve


def test_folder_and_file_of_a_package():
    model, tokenizer = load_model(Model(str(CHECKPOINT)))
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token != tokenizer.eos_token
    assert resolve("python:ktae/chain/weights") == str(CHECKPOINT)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("python:no_such_package/x", "the Python package 'no_such_package' is not installed"),
        ("python:ktae/no/such/file", "no/such/file does not exist"),
        ("runs/mistyped/model", "the model runs/mistyped/model does not exist .looked in "),
        ("runs/mistyped", "the model runs/mistyped does not exist"),
        ("./model", "the model ./model does not exist"),
        ("model.gguf", "the model model.gguf does not exist"),
        ("runs", "the folder runs holds no model: there is no config.json in it"),
    ],
)
def test_missing(path, message, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        check_available(path)


@pytest.mark.parametrize("path", ["gpt2", "Qwen/Qwen2.5-Math-1.5B"])
def test_what_can_be_on_the_hub_is_left_to_it_and_what_is_there_not_asked_for(path, monkeypatch):
    assert resolve(path) == path
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"^the model {path} is no local folder, and .* hub does not give it: [^\n]+$"):
        check_available(path)
    check_available("python:ktae/chain/weights")


def test_tokenizer_without_padding_pads_with_the_end(tmp_path):
    _, tokenizer = load_model(Model(str(CHECKPOINT)))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(CHECKPOINT / file)
    _, tokenizer = load_model(Model(str(tmp_path)))
    assert tokenizer.pad_token == tokenizer.eos_token
