"""Who may import whom (the contracts of pyproject.toml), and that what people are told to open is there."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wegen

ROOT = Path(wegen.__file__).parent


@pytest.mark.parametrize("contract", ["layers", "nodes", "circles"])
def test_imports_follow_the_layers(contract):
    pytest.importorskip("importlinter", reason='import-linter is missing; pip install "wegen[test]"')
    code = f"from importlinter.cli import lint_imports as run; raise SystemExit(run(limit_to_contracts=('{contract}',), no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)  # it sets up logging anew
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_is_run():
    assert set(re.findall(r'^id = "(\w+)"', (ROOT / "pyproject.toml").read_text(encoding="utf8"), re.M)) == {"layers", "nodes", "circles"}


def defined(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf8")).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_modules_that_tables_name_are_there():
    """Read, not imported: what the models of `wegen data diic` and the readers need may be absent."""
    from wegen.wegen_model.data import readers
    from wegen.wegen_model.diic import models

    library = ROOT / "wegen_model"
    for kind, specs in models.OFFERED.items():
        for spec in specs:
            assert models.KINDS[kind] in defined(library / "diic" / f"{models.WHERE[spec]}.py"), (kind, spec)
    for reader in readers.READERS.values():
        assert reader.function in defined(library / "data" / "readers" / f"{reader.module}.py"), reader.name


def test_every_benchmark_is_run_by_make_bench_and_can_be_imported():
    from wegen.benchmarks import __main__ as entry

    files = {p.stem for p in (ROOT / "benchmarks").glob("*.py")} - {"__main__"}
    assert set(entry.NAMES) == files
    for name in files:
        assert callable(importlib.import_module(f"wegen.benchmarks.{name}").main)
        assert f"`{name}.py`" in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf8")


def test_every_file_that_the_guide_names_is_there():
    """CONTRIBUTING.md: paths in backticks; NAME, XX and * stand for what is to be written."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    named = set(re.findall(r"`([\w.*-]+(?:/[\w.*-]+)*/?)`", text))
    paths = {n for n in named if ("/" in n or re.search(r"\.(py|md|json|toml|txt|yaml|js|mjs)$", n)) and not re.search(r"NAME|XX", n)}
    assert len(paths) > 30
    lacking = sorted(n for n in paths if not list(ROOT.glob(n.rstrip("/"))))
    assert lacking == []
