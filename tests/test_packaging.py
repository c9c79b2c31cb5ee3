"""What a wheel holds: all packages of the tree and the files they read, nothing else, and the same bytes each time."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wegen

ROOT = Path(wegen.__file__).parent
IN_WHEEL = ("__init__.py", "__main__.py", "icon.svg", "nodes", "wegen_model", "js", "locales", "subgraphs", "workflows")
SOURCES = (*IN_WHEEL, "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
STRAY = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
# read by `wegen mini`, `wegen data diic` and `wegen train configs`
NEEDED = (
    "wegen_model/mini/weights/config.json",
    "wegen_model/mini/weights/vision.safetensors",
    "wegen_model/mini/weights/unet/diffusion_pytorch_model.safetensors",
    "wegen_model/mini/world/concepts.py",
    "wegen_model/diic/run.py",
    "wegen_model/train/configs/fsdp2.yaml",
    "workflows/text_to_picture.json",
)


def tree() -> set[str]:
    """Files that belong into a wheel, as paths below the package."""
    files = [ROOT / name for name in IN_WHEEL if (ROOT / name).is_file()]
    files += [p for name in IN_WHEEL for p in (ROOT / name).rglob("*") if p.is_file()]
    return {p.relative_to(ROOT).as_posix() for p in files if not STRAY("", p.relative_to(ROOT).parts)}


def version() -> str:
    return re.search(r'^version = "([\d.]+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf8"), re.M)[1]


def test_setuptools_finds_what_is_in_the_tree():
    code = (
        "import json, setuptools, sys; from distutils.core import run_setup; d = run_setup('setup.py', stop_after='config');"
        "build = d.get_command_obj('build_py'); build.ensure_finalized();"
        "data = [f'{folder}/{name}' for _, folder, _, names in build.data_files for name in names];"
        "sys.stdout.write('\\n' + json.dumps([module[-1] for module in build.find_all_modules()] + data))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {Path(os.path.normpath(path)).as_posix() for path in json.loads(done.stdout.splitlines()[-1])}
    assert found == tree()
    assert set(NEEDED) <= found


def test_the_version_is_said_once_and_releases_agree():
    """pyproject.toml has it; the newest release of CHANGELOG.md and the newest snapshot are of that version."""
    releases = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(encoding="utf8"), re.M)
    shipped = sorted((p.stem for p in (ROOT / "tests" / "golden" / "shipped").glob("*.json")), key=lambda v: tuple(map(int, v.split("."))))
    assert releases[0] == shipped[-1] == version() and releases[::-1] == shipped


@pytest.mark.slow
def test_a_wheel_is_the_same_bytes_twice_and_works(tmp_path):
    wheels = []
    for name in ("one", "two"):
        source = tmp_path / name
        source.mkdir()
        for part in SOURCES:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
            copy(ROOT / part, source / part, **({"ignore": STRAY, "copy_function": shutil.copyfile} if copy is shutil.copytree else {}))
        code = "from setuptools import build_meta; build_meta.build_wheel('out')"
        env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        done = subprocess.run([sys.executable, "-c", code], cwd=source, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        wheels += (source / "out").glob("*.whl")
    assert wheels[0].name == wheels[1].name == f"wegen-{version()}-py3-none-any.whl"
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as wheel:
        assert {n.removeprefix("wegen/") for n in wheel.namelist() if n.startswith("wegen/")} == tree()
        wheel.extractall(tmp_path / "site")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(tmp_path / "site")}
    for arguments, said in (
        (["mini", "concepts"], "fox"),
        (["data", "diic", "--help"], "--captioner"),
        (["train", "configs", "fsdp2"], "fsdp2.yaml"),
        (["inspect", str(tmp_path / "site/wegen/wegen_model/mini/weights")], "wegen"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "wegen", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 and said in done.stdout, (arguments, done.stdout, done.stderr)


def test_every_test_that_the_threat_model_names_is_there():
    rows = [row for row in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if row.startswith("| ") and "test" in row]
    cells = [row.rsplit("|", 2)[1] for row in rows if "`test_" in row]
    assert len(cells) > 20
    for cell in cells:
        names: list[str] = []
        for found in re.finditer(r"`(test_\w+)`|\((tests/[\w/]+\.py)\)", cell):
            if found[1]:
                names.append(found[1])
                continue
            text = (ROOT / found[2]).read_text(encoding="utf-8")
            assert names and all(f"def {name}(" in text for name in names), f"{found[2]}: {names}"
            names = []
        assert not names, f"no file is named for {names}"
