"""Uploading a trained model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from ktae.extras import require


def check_hub(repository: str) -> None:
    """Finds out before training whether the upload can work.

    Args:
        repository: `owner/name`.

    Raises:
        ValueError: the name is not of that form, the hub cannot be reached, or nobody is logged in.
    """
    if repository.count("/") != 1 or repository.startswith("/") or repository.endswith("/"):
        raise ValueError(f"--push-to-hub must be OWNER/NAME, got {repository!r}")
    try:
        require("huggingface_hub", extra="train").HfApi().whoami()
    except (OSError, RuntimeError) as error:  # no network, no token, a wrong one
        raise ValueError(f"--push-to-hub: the hub does not know who you are (hf auth login): {error}") from error


def push(model: Path, repository: str) -> str:
    """Uploads the folder `model`, creating the repository if need be; returns its address."""
    api = require("huggingface_hub", extra="train").HfApi()
    address = api.create_repo(repository, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=str(model))
    return str(address)
