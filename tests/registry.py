"""What the registry asks of the pack, without asking it: its metadata, and the files of its archive. `make registry-check`.

Source: comfy-cli's registry/config_parser.py and file_utils.py (`comfy node validate`, `comfy node pack`), docs.comfy.org/registry. Its ruff
rules (S102, S307, E702) are among those of `make lint`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import wegen

ROOT = Path(wegen.__file__).parent
SYSTEMS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
ACCELERATORS = ("GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "NPU :: Huawei Ascend", "GPU :: Apple Metal")
VERSION = re.compile(r"(==|>=|<=|!=|~=|>|<|<>|=)?\s*\d+\.\d+\.\d+(-[a-zA-Z0-9]+)?")
ADDRESS = re.compile(r"https://\S+")


def metadata(path: Path = ROOT / "pyproject.toml") -> dict:
    return tomllib.loads(path.read_text(encoding="utf8"))


def problems(data: dict, web_directory: bool = True) -> list[str]:
    """What the registry would refuse, or read as empty."""
    project, comfy = data.get("project", {}), data.get("tool", {}).get("comfy", {})
    name, found = project.get("name", ""), []
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name) or len(name) >= 100:
        found.append(f"name {name!r}: letters, digits and single - _ . between them, under 100, a letter first")
    if not re.fullmatch(r"\d+\.\d+\.\d+", project.get("version", "")):
        found.append(f"version {project.get('version')!r}: three numbers")
    if not project.get("description"):
        found.append("description: is empty")
    if not isinstance(project.get("license"), str) and not {"file", "text"} & set(project.get("license") or {}):
        found.append("license: an SPDX text, {file = …} or {text = …}")
    for key in ("PublisherId", "DisplayName", "requires-comfyui"):
        if not comfy.get(key):
            found.append(f"[tool.comfy] {key}: is empty")
    if not all(VERSION.fullmatch(part.strip()) for part in comfy.get("requires-comfyui", "").split(",")):
        found.append(f"[tool.comfy] requires-comfyui {comfy.get('requires-comfyui')!r}: operator and three numbers, comma-separated")
    for key in ("Icon", "Banner"):
        if key in comfy and not ADDRESS.fullmatch(comfy[key]):
            found.append(f"[tool.comfy] {key} {comfy[key]!r}: an address")
    if web_directory and comfy.get("web"):
        found.append("[tool.comfy] web: the pack has WEB_DIRECTORY; one of the two")
    for line in project.get("classifiers", []):
        kind, _, value = line.partition(" :: ")
        if kind == "Operating System" and not value.startswith(SYSTEMS) or kind == "Environment" and value not in ACCELERATORS:
            found.append(f"classifier {line!r}: unknown to the registry, which then reads none of its kind")
    return found


def lacking(data: dict) -> list[str]:
    """Addresses that the registry asks for, and that come with the repository's own."""
    project, comfy = data.get("project", {}), data.get("tool", {}).get("comfy", {})
    wanted = {"[project.urls] Repository": project.get("urls", {}).get("Repository"), "[tool.comfy] Icon": comfy.get("Icon")}
    return [name for name, value in wanted.items() if not value]


def archive(folder: Path = ROOT) -> list[str]:
    """The files of the registry's archive: those that git tracks, less .comfyignore. Empty where git cannot say."""

    def files(*options: str) -> set[str]:
        done = subprocess.run(["git", "-C", str(folder), "ls-files", "-z", *options], capture_output=True, check=False)
        return set(filter(None, done.stdout.decode().split("\0"))) if done.returncode == 0 else set()

    return sorted(files() - files("-ci", "-X", str(folder / ".comfyignore")))


def main() -> int:
    data, files = metadata(), archive()
    found = problems(data)
    megabytes = sum((ROOT / name).stat().st_size for name in files if (ROOT / name).is_file()) / 1e6
    folders = ", ".join(sorted({name.split("/")[0] for name in files}))
    sys.stdout.write(f"archive: {len(files)} files, {megabytes:.1f} MB before compression: {folders}\n")
    sys.stdout.write("".join(f"refused: {line}\n" for line in found))
    sys.stdout.write("".join(f"lacking until the repository has an address: {line}\n" for line in lacking(data)))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
