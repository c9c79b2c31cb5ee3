"""The subgraph blueprints in the frontend: read by its own store, put into a graph, wired as a person would, and run.

ComfyUI offers blueprints of packs since 0.3.67; an older server is given the answer of a newer one, so that the frontend reads the same
files. Frontends without such a store skip. Environment as in conftest.py.
"""

import json

import numpy as np
import pytest
from PIL import Image
from wegen.tests.comfyui.editors import EMPTY
from wegen.tests.comfyui.server import BLUEPRINTS, WORKFLOWS, ComfyError
from wegen.tests.comfyui.test_pack import furthest, pictures_of

pytestmark = pytest.mark.comfyui

STORE = "document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s"
NAMES = f"() => [...({STORE}.get('nodeDef')?.blueprintNodeDefsByName?.values() ?? [])].map((d) => d.display_name)"
# As the frontend's own addNodeOnGraph does; returns the box's id.
PUT = f"""(name) => {{
  const def = [...{STORE}.get('nodeDef').blueprintNodeDefsByName.values()].find((d) => d.display_name === name);
  const {{ nodes, definitions }} = {STORE}.get('subgraph').getBlueprint(def.name);
  const made = app.canvas._deserializeItems({{ nodes, subgraphs: definitions.subgraphs }}, {{ position: [900, 100] }});
  return made.nodes.values().next().value.id;
}}"""
# Nodes around the box, each of its sockets fed by the first that gives what it takes. Returns the ids of Save Image and of the picture shown.
WIRE = """([id, picture]) => {
  const box = app.graph.getNodeById(id), made = [];
  const add = (type, values = {}) => {
    const node = LiteGraph.createNode(type);
    node.pos = [0, made.length * 300];
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
    made.push(node);
    return node;
  };
  const into = (from, type, to, name) =>
    from.connect(from.outputs.findIndex((o) => o.type === type), to, to.inputs.findIndex((i) => i.name === name));
  const model = add("WeGenLoadModel"), image = add("WeGenExamplePicture", { picture }), features = add("WeGenEncode");
  const place = add("WeGenBboxCompose", { box_text: "0.48 0.2 0.52 0.6", width: 128, height: 128 });
  into(model, "WEGEN_MODEL", features, "model");
  into(image, "IMAGE", features, "image");
  for (const input of box.inputs) {
    if (input.widget) continue;
    for (const type of String(input.type).split(",")) {
      const from = type === "MASK" ? place : made.find((node) => node.outputs.some((o) => o.type === type));
      if (!from) continue;
      into(from, type, box, input.name);
      break;
    }
  }
  const save = add("SaveImage", { filename_prefix: "wegen/boxed" }), shown = add("PreviewImage");
  save.pos = [1500, 100];
  into(box, "IMAGE", save, "images");
  into(image, "IMAGE", shown, "images");
  return [String(save.id), String(shown.id)];
}"""


@pytest.fixture(scope="module")
def blueprints(page, comfy):
    """The page with the pack's blueprints in its store."""
    try:
        comfy.get("/global_subgraphs")
    except ComfyError:
        files = {f"wegen-{i}": path for i, path in enumerate(BLUEPRINTS)}
        info = {"node_pack": "custom_nodes.wegen"}
        listed = {
            key: {"source": "custom_node", "name": path.stem, "info": info, "data": path.read_text(encoding="utf8")}
            for key, path in files.items()
        }
        page.page.route(lambda url: "/global_subgraphs" in url, lambda route: route.fulfill(json=listed))
        page._open()
    known = page.page.evaluate(NAMES)
    if not known:
        pytest.skip("this frontend reads no blueprints of packs")
    assert {path.stem for path in BLUEPRINTS} <= set(known)
    return page


def read(comfy, image: dict) -> np.ndarray:
    folder = {"output": comfy.outputs, "temp": comfy.base / "temp"}[image["type"]]
    return np.asarray(Image.open(folder / image["subfolder"] / image["filename"]).convert("RGB"))


def run(page, comfy, name: str, picture: str = "cat_and_dog") -> tuple[np.ndarray, np.ndarray]:
    """The picture that a blueprint gives, and the one that it was given."""
    page.load(EMPTY)
    box = page.page.evaluate(PUT, name)
    save, shown = page.page.evaluate(WIRE, [box, picture])
    page.page.wait_for_timeout(500)
    assert page.broken() == []
    comfy.free()  # nothing from the cache: each node shows what it has
    assert page.run() == "success", page.broken()
    entry = list(comfy.get("/history?max_items=1").values())[-1]["outputs"]
    assert page.errors() == []
    return read(comfy, entry[save]["images"][0]), read(comfy, entry[shown]["images"][0])


def flat(name: str):
    return next(path for path in WORKFLOWS if path.stem == name)


def test_text_to_picture(blueprints, comfy, first_run, shoot):
    made, _ = run(blueprints, comfy, "WeGen text to picture")
    blueprints.fit()
    shoot("blueprint-text")
    (expected,) = next(iter(pictures_of(comfy, first_run(flat("text_to_picture"))).values()))
    assert furthest({"x": [made]}, {"x": [expected]}) == 0


def test_change_a_picture(blueprints, comfy, first_run):
    """Fox in, the flat workflow's first branch out."""
    made, given = run(blueprints, comfy, "WeGen change a picture", "fox_on_beige")
    flat_pictures = [p for row in pictures_of(comfy, first_run(flat("edit_by_instruction"))).values() for p in row]
    assert any(np.array_equal(made, p) for p in flat_pictures) and made.std() > 1


def test_ksampler_keeps_the_rest(blueprints, comfy, shoot):
    """Outside the box 0.48 0.2 0.52 0.6 the saved PNG is the picture that was given."""
    made, given = run(blueprints, comfy, "WeGen KSampler keeps the rest")
    blueprints.fit()
    shoot("blueprint-ksampler")
    differs = (made != given).any(-1)
    inside = np.zeros(differs.shape, bool)
    inside[26:102, 61:] = True
    assert made.shape == given.shape and not differs[~inside].any() and differs[inside].mean() > 0.5


def test_the_box_says_what_it_is(blueprints):
    """The description of each file stands in the node's own."""
    said = blueprints.page.evaluate(
        f"() => [...{STORE}.get('nodeDef').blueprintNodeDefsByName.values()].map((d) => [d.display_name, d.description])"
    )
    for path in BLUEPRINTS:
        (definition,) = json.loads(path.read_text(encoding="utf8"))["definitions"]["subgraphs"]
        assert dict(said)[path.stem] == definition["description"]
