"""What the registry would refuse (registry.py): nothing of ours; and the check sees each fault."""

import copy

import pytest
from wegen.tests.registry import ROOT, archive, lacking, metadata, problems
from wegen.tests.test_packaging import tree


def test_nothing_of_ours_would_be_refused():
    data = metadata()
    assert problems(data) == []
    assert set(lacking(data)) <= {"[project.urls] Repository", "[tool.comfy] Icon"}  # addresses that do not exist yet


@pytest.mark.parametrize(
    "section, key, value, words",
    [
        ("project", "name", "1-wegen", "name '1-wegen'"),
        ("project", "name", "we--gen", "name 'we--gen'"),
        ("project", "version", "0.2", "version '0.2'"),
        ("project", "description", "", "description"),
        ("project", "license", {"name": "MIT"}, "license"),
        ("project", "classifiers", ["Operating System :: Linux"], "Operating System :: Linux"),
        ("project", "classifiers", ["Environment :: GPU :: NVIDIA"], "Environment :: GPU :: NVIDIA"),
        ("comfy", "PublisherId", "", "PublisherId"),
        ("comfy", "requires-comfyui", ">=0.3", "requires-comfyui '>=0.3'"),
        ("comfy", "Icon", "icon.svg", "Icon 'icon.svg'"),
        ("comfy", "web", "js", "web"),
    ],
)
def test_each_fault_is_seen(section, key, value, words):
    data = copy.deepcopy(metadata())
    (data["project"] if section == "project" else data["tool"]["comfy"])[key] = value
    (problem,) = problems(data)
    assert words in problem


def test_the_archive_holds_what_the_pack_needs_and_no_tests():
    files = set(archive())
    if not files:
        pytest.skip("git does not know this folder")
    assert {name for name in tree() if not (ROOT / name).is_symlink()} - files == set(), "not tracked by git, or ignored by .comfyignore"
    assert {"pyproject.toml", "requirements.txt", "README.md", "LICENSE", "NOTICE", "icon.svg"} <= files
    assert not {name for name in files if name.startswith(("tests/", "benchmarks/", ".ci/"))}
    assert sum((ROOT / name).stat().st_size for name in files) < 60e6
