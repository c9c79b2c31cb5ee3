"""The grids of colours below nodes that make features, in ComfyUI's own frontend, both renderers. Skipped as test_browser.py is."""

import pytest
from wegen.tests.comfyui.editors import SET, build

pytestmark = pytest.mark.comfyui


def test_features_are_shown_below_the_nodes_that_make_them(page, shoot):
    ids = build(
        page,
        [
            ("WeGenLoadModel", (0, 0)),
            ("WeGenExamplePicture", (0, 300)),
            ("WeGenEncode", (340, 0)),
            ("WeGenPreviewFeatures", (760, 0)),
            ("PreviewImage", (1060, 0)),
        ],
        [(0, 0, 2, "model"), (1, 0, 2, "image"), (2, 0, 3, "features"), (3, 0, 4, "images")],
    )
    assert page.run() == "success", page.broken()
    page.fit()
    shoot("grids")
    filled = page.page.evaluate(
        """id => [...app.graph.getNodeById(id).wegenGrids.element.querySelectorAll('.wegen-cells')]
      .map((g) => [...g.children].filter((c) => c.style.backgroundColor).length)""",
        ids[2],
    )
    assert filled == [64]
    grid = page.page.locator(".wegen-grids .wegen-cells:visible").first.bounding_box()
    assert grid["width"] > 60 and abs(grid["width"] - grid["height"]) < 3
    assert page.overlaps() == [] and page.errors() == []


def test_the_grid_of_a_node_fills_while_its_features_are_written(page):
    """Cells in the node, also in one inside a subgraph; no picture below it."""
    ids = build(
        page,
        [
            ("WeGenLoadModel", (0, 0)),
            ("WeGenChat", (340, 0)),
            ("WeGenDraw", (760, 0)),
            ("WeGenPreviewFeatures", (1140, 0)),
            ("PreviewImage", (1500, 0)),
        ],
        [(0, 0, 1, "model"), (0, 0, 2, "model"), (1, 0, 2, "chat"), (2, 0, 3, "features"), (3, 0, 4, "images")],
    )
    page.page.evaluate(SET, [ids[1], "message", "a fox on a teal background"])
    page.page.evaluate(SET, [ids[1], "picture", "always"])
    for inside in (False, True):
        if inside:
            page.page.evaluate("id => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])) }", ids[2])
        page.page.evaluate(SET, [ids[1], "seed", 2 * page.vue + inside])  # nothing from the cache
        page.page.evaluate("""() => {
          window.__filled = [];
          window.__draws = () => { const graphs = [app.graph, ...app.graph._nodes.map((n) => n.subgraph).filter(Boolean)];
            return graphs.flatMap((g) => g._nodes).find((n) => n.type === 'WeGenDraw') };
          const look = () => { const cells = window.__draws()?.wegenGrids?.element.querySelectorAll('.wegen-cells i') ?? [];
            window.__filled.push([...cells].filter((c) => c.style.backgroundColor).length) };
          app.api.addEventListener('wegen.features', look);  // after the pack's own listener
        }""")
        assert page.run() == "success", page.broken()
        filled = page.page.evaluate("window.__filled")
        assert len(set(filled)) > 2 and filled == sorted(filled) and filled[-1] == 64, filled
        assert not page.page.evaluate("window.__draws().imgs?.length")
    assert page.errors() == []
