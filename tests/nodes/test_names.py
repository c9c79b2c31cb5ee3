"""Names that ComfyUI shares between all packs carry our prefix; what older workflows store still loads; what the registry reads."""

import json
import re
from pathlib import Path

import pytest
import wegen
from wegen.nodes import NODE_CLASS_MAPPINGS, host
from wegen.wegen_model.workflow.canvas import read_widgets
from wegen.wegen_model.workflow.spec import inputs_of

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

ROOT = Path(wegen.__file__).parent
SHIPPED = sorted((ROOT / "tests" / "golden" / "shipped").glob("*.json"))
CORE_TYPES = {"IMAGE", "MASK", "STRING", "INT", "FLOAT", "BOOLEAN", "BOUNDING_BOX", "BBOX", "CONDITIONING", "MODEL", "VAE", "LATENT"}
CORE_TYPES |= {"LORA_MODEL", "LOSS_MAP", "ARRAY"}  # of its training nodes; of its layout nodes
SOURCES = [*ROOT.glob("nodes/**/*.py"), *ROOT.glob("js/**/*.js")]
# what puts a name into ComfyUI's common space, and how the name must begin
SHARED_NAMES = (
    (r"registerExtension\(\s*\{\s*name:\s*[\"'`]([^\"'`]+)", r"(?i)wegen\b"),
    (r"(?:fetchApi|apiURL)\(\s*[\"'`](/[^\"'`]*)", r"/(?:wegen\b|view\?|upload/|object_info|extensions/wegen|queue|history|prompt)"),
    (r"routes\.(?:get|post|delete)\(\s*f?[\"'](/[^\"']*)", r"/wegen\b"),
    (r"send_sync\(\s*f?[\"']([^\"']+)", r"wegen\."),
    (r"addDOMWidget\(\s*[^,]+,\s*[\"'`]([^\"'`]+)", r"WEGEN_"),
    (r"customElements\.define\(\s*[\"'`]([^\"'`]+)", r"wegen-"),
    (r"localStorage\.\w+\(\s*[\"'`]([^\"'`]+)", r"(?i)wegen"),
)


def test_ids_categories_and_sockets():
    for name, cls in NODE_CLASS_MAPPINGS.items():
        assert name.startswith("WeGen") and cls.CATEGORY.split("/")[0] == "WeGen"
        declared = cls.INPUT_TYPES()
        kinds = {kind for group in ("required", "optional") for kind, *_ in declared.get(group, {}).values() if isinstance(kind, str)}
        for kind in (*kinds, *cls.RETURN_TYPES):
            assert all(part in CORE_TYPES or part.startswith("WEGEN_") for part in kind.split(",")), (name, kind)
    assert host.FOLDER == "wegen"


@pytest.mark.parametrize("pattern, begins", SHARED_NAMES)
def test_shared_names_in_scripts_and_routes(pattern, begins):
    for path in SOURCES:
        for name in re.findall(pattern, path.read_text(encoding="utf8")):
            assert re.match(begins, name), f"{path.relative_to(ROOT)}: {name}"


def test_the_name_check_sees_a_foreign_name():
    """The check itself."""
    pattern, begins = SHARED_NAMES[0]
    found = [re.findall(pattern, f"app.registerExtension({{ name: '{name}', setup() {{}} }})") for name in ("Wegen.chat", "Chat")]
    assert [bool(re.match(begins, name)) for (name,) in found] == [True, False]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_what_an_older_version_stored_still_loads(path):
    """Rows of values as a shipped version's workflows hold them, and what each meant: values go by position, so widgets are append-only."""
    for entry in json.loads(path.read_text(encoding="utf8")):
        cls = NODE_CLASS_MAPPINGS[entry["type"]]
        now = {name: value for name, (value, _) in read_widgets({"widgets_values": entry["row"]}, cls).items()}
        assert {name: now.get(name) for name in entry["values"]} == entry["values"], entry["type"]


def test_the_snapshot_sees_a_moved_widget():
    """The check itself: a widget put before the others shifts all values."""
    entry = next(e for e in json.loads(SHIPPED[0].read_text(encoding="utf8")) if e["type"] == "WeGenDraw")

    class Moved(NODE_CLASS_MAPPINGS["WeGenDraw"]):
        @classmethod
        def INPUT_TYPES(cls):
            declared = super().INPUT_TYPES()
            return declared | {"required": {"new": ("FLOAT", {"default": 2.0}), **declared["required"]}}

    now = {name: value for name, (value, _) in read_widgets({"widgets_values": entry["row"]}, Moved).items()}
    assert {name: now[name] for name in entry["values"]} != entry["values"]


def test_every_node_of_a_release_is_in_the_newest_snapshot():
    held = {entry["type"] for entry in json.loads(SHIPPED[-1].read_text(encoding="utf8"))}
    stored = {name for name, cls in NODE_CLASS_MAPPINGS.items() if read_widgets({"widgets_values": []}, cls)}
    assert stored <= held, "add a row of the new node to the newest file of tests/golden/shipped"


@pytest.mark.skipif(tomllib is None, reason="Python 3.10 has no tomllib")
def test_what_the_registry_reads():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    comfy, project = data["tool"]["comfy"], data["project"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and "comfyui" not in project["name"].lower()
    assert (ROOT / "icon.svg").read_text(encoding="utf8").lstrip().startswith("<svg")
    assert comfy.get("Icon", "https://").startswith("https://")  # an address, once there is one; the rest: tests/test_registry.py
    wanted = {re.split(r"[<>=]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"}
    assert not wanted & {"torch", "torchvision", "torchaudio", "transformers"}
    assert wanted <= {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    assert all("==" not in line and "<" not in line for line in (ROOT / "requirements.txt").read_text().splitlines())


def test_the_package_holds_what_the_pack_needs():
    if tomllib is None:
        pytest.skip("Python 3.10 has no tomllib")
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]["package-data"]["wegen"]
    kept = {path for pattern in globs for path in ROOT.glob(pattern) if path.is_file()}
    for folder in ("workflows", "js", "locales", "subgraphs"):
        assert {p for p in (ROOT / folder).rglob("*") if p.is_file()} <= kept, folder


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_prompts_of_a_shipped_version_lack_nothing(path):
    """In API format values go by name, and the server refuses a prompt without a required one: later widgets are optional."""
    for row in json.loads(path.read_text()):
        kind = NODE_CLASS_MAPPINGS[row["type"]]
        widgets = {i.name for i in inputs_of(kind).values() if i.is_widget}
        assert widgets & set(kind.INPUT_TYPES()["required"]) <= set(row["values"]), row["type"]
