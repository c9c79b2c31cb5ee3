"""The table of models: each row names a module that is there, and classes in it. Needs none of what `wegen data` needs."""

import ast
from pathlib import Path

import pytest
from wegen.wegen_model.diic import models


@pytest.mark.parametrize("kind, spec", [(kind, spec) for kind, specs in models.OFFERED.items() for spec in specs])
def test_an_offered_model_is_in_the_module_that_the_table_names(kind, spec):
    path = Path(models.__file__).with_name(f"{models.WHERE[spec]}.py")
    names = {node.name for node in ast.parse(path.read_text(encoding="utf8")).body if isinstance(node, ast.ClassDef)}
    assert models.KINDS[kind] in names, path.name
