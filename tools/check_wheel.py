"""Installs the wheel in DIST into a new environment, and uses it elsewhere: `python tools/check_wheel.py DIST`.

Also looks at what the wheel and the sdist hold. Needs pip and a package index; takes about a minute.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = {
    "ktae/chain/weights/model.safetensors",
    "ktae/train/assets/quickstart.yaml",
    "ktae/report/assets/page.css",
    "ktae/py.typed",
}
BESIDE_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore")
LARGEST = 3_000_000  # bytes; the weights are 1.4 MB

EXERCISE = """
import importlib.util, sys
import torch, ktae
assert ktae.__file__.startswith(sys.prefix), f"imported from {ktae.__file__}"
ids = torch.tensor([[11, 12, 13], [11, 12, 99], [11, 14, 99], [11, 14, 13]])
batch = ids, torch.ones_like(ids), torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.zeros(4, dtype=torch.long)
from ktae import kernels
compiled = importlib.util.find_spec("numba") is not None
assert kernels.usable(ids) == compiled == (sys.argv[1] == "numba")
for config in (ktae.KTAEConfig(), ktae.KTAEConfig.recommended()):
    value = ktae.key_token_values(*batch, config=config)
    assert (value[:, 2].sign() == torch.tensor([1, -1, -1, 1])).all() and not value[:, 0].any(), value
    advantages = ktae.ktae_advantages(*batch, config=config)
    torch.testing.assert_close(advantages, (ktae.rollout.grpo(*batch[2:])[:, None] + value).float())
print("used", ktae.__file__, "with" if compiled else "without", "numba")
"""


def contents(dist: Path) -> Path:
    """The wheel, after a look at what it and the sdist hold."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/ktae").rglob("*.py")}
    for missing in (sources | DATA) - in_wheel, {f"src/{name}" for name in sources | DATA} - in_sdist:
        assert not missing, f"not packed: {sorted(missing)}"
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    strange = {name for name in in_wheel if not name.startswith(("ktae/", f"{metadata}/")) or "__pycache__" in name}
    strange |= {
        name for name in in_sdist if not name.startswith(("src/ktae/", *BESIDE_SOURCES)) or "__pycache__" in name
    }
    assert not strange, f"packed, and should not be: {sorted(strange)}"
    version = wheel.name.split("-")[1]
    for name, line in (("CITATION.cff", f"version: {version}\n"), ("CHANGELOG.md", f"## {version} - ")):
        assert line in (ROOT / name).read_text(), f"{name} has no line {line!r}"
    for file in (wheel, sdist):
        assert file.stat().st_size < LARGEST, f"{file.name} has {file.stat().st_size} bytes"
        print(file.name, f"{file.stat().st_size / 1e6:.1f} MB")
    return wheel


def use(wheel: Path, folder: Path) -> None:
    """Everything that a fresh `pip install ktae` promises, in a new environment and outside the checkout."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"

    def run(*command: str | Path, status: int = 0) -> str:
        done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def install(*packages: str | Path) -> None:
        run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", *packages)

    install(wheel)
    print(run(python, "-I", "-W", "error", "-c", EXERCISE, "alone").strip())
    version = wheel.name.split("-")[1]
    assert run(python.parent / "ktae", "--version").split() == ["ktae", version]
    assert run(python, "-m", "ktae", "--version").split() == ["ktae", version]
    refused = run(python.parent / "ktae", "train", "quickstart", status=2)
    assert "ktae[train]" in refused, refused
    assert len(refused.splitlines()) == 1, refused
    print(refused.strip())
    install(f"{wheel}[fast]")
    print(run(python, "-I", "-W", "error", "-c", EXERCISE, "numba").strip())


if __name__ == "__main__":
    wheel = contents(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        use(wheel.resolve(), Path(folder))
