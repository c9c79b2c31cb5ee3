"""Bbox Compose's canvas over the pictures of its graph: the background socket, subgraphs, locked boxes, drawing over boxes, full screen."""

import json

import pytest
from wegen.tests.comfyui.editors import boxes, build, drag, near, value
from wegen.tests.comfyui.test_editors import composed

pytestmark = pytest.mark.comfyui

BELOW = "() => [...document.querySelectorAll('.wegen-background')].map((e) => e.hidden ? '' : e.src)"


def with_background(page, comfy):
    compose = composed(page, comfy)
    page.page.evaluate(
        """id => { const node = app.graph.getNodeById(id), one = app.graph._nodes.find(n => n.type === 'LoadImage');
      one.connect(0, node, node.inputs.findIndex(i => i.name === 'background')) }""",
        compose,
    )
    page.page.wait_for_timeout(300)
    return compose


def test_boxes_are_drawn_over_what_is_in_the_graph(page, comfy, shoot):
    compose = with_background(page, comfy)
    (shown,) = page.page.evaluate(BELOW)
    assert "wegen-editor-1.jpg" in shown, "the picture of the node at the socket, before anything ran"
    drag(page, (0.1, 0.1), (0.5, 0.5))
    drag(page, (0.6, 0.6), (0.9, 0.9))
    page.page.wait_for_timeout(500)
    shoot("boxes-background")
    assert page.run() == "success", page.broken()
    loaded = page.page.evaluate("app.graph._nodes.filter(n => n.type === 'LoadImage').map(n => n.widgets[0].value)")
    inner = page.page.evaluate(
        """id => { window.__host = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])).node;
      return window.__host.subgraph._nodes.find(n => n.type === 'WeGenBboxCompose').id }""",
        compose,
    )
    page.page.wait_for_timeout(500)  # as a person does: made first, entered then
    page.page.evaluate("app.canvas.openSubgraph?.(window.__host.subgraph, window.__host)")
    page.page.wait_for_timeout(1000)
    page.fit()
    inside = page.page.evaluate(
        "id => { const w = app.canvas.graph.getNodeById(id).widgets.find(w => w.name === 'canvas'); "
        "w.element.dispatchEvent(new PointerEvent('pointerenter')); "
        "return { seen: w.element.checkVisibility(), below: w.element.querySelector('.wegen-background').src, "
        "thumbs: [...w.element.querySelectorAll('.wegen-box img')].filter(e => !e.hidden).map(e => e.src) } }",
        inner,
    )
    assert inside["seen"] or page.early_nodes2, "what is seen is the widget of the node inside"
    assert "wegen-editor-1.jpg" in inside["below"], "in a subgraph the picture comes from outside"
    assert [name in source for name, source in zip(loaded, inside["thumbs"], strict=True)] == [True, True]
    shoot("boxes-subgraph")
    page.page.evaluate("app.canvas.setGraph(app.graph)")
    assert page.errors() == []


def test_a_locked_box_stays_and_is_drawn_over(page):
    (compose,) = build(page, [("WeGenBboxCompose", (0, 0))])
    drag(page, (0.1, 0.1), (0.9, 0.9))
    locks = page.page.get_by_label("Lock box 1: it cannot be moved, and can be drawn over")
    locks.locator("visible=true").first.click()
    drag(page, (0.3, 0.3), (0.6, 0.6))
    near(boxes(page, compose), [[1, 0.1, 0.1, 0.8, 0.8], [2, 0.3, 0.3, 0.3, 0.3]], 0.03)
    assert [b.get("locked", False) for b in json.loads(value(page, compose, "canvas"))["boxes"]] == [True, False]
    drag(page, (0.45, 0.45), (0.5, 0.5))  # the second is moved
    page.page.get_by_label("Draw over boxes that are there (or hold Shift)").locator("visible=true").first.click()
    drag(page, (0.45, 0.45), (0.55, 0.55))  # and now drawn over
    near(boxes(page, compose), [[1, 0.1, 0.1, 0.8, 0.8], [2, 0.35, 0.35, 0.3, 0.3], [3, 0.45, 0.45, 0.1, 0.1]], 0.03)
    page.page.keyboard.press("Control+z")
    assert len(boxes(page, compose)) == 2


def test_the_canvas_fills_the_screen_on_demand(page, shoot):
    (compose,) = build(page, [("WeGenBboxCompose", (0, 0))])
    before = page.page.locator(".wegen-frame:visible").first.bounding_box()
    page.page.get_by_label("Full screen (Escape leaves it)").locator("visible=true").first.click()
    page.page.wait_for_function("document.fullscreenElement?.classList.contains('wegen-boxes')")
    page.page.wait_for_timeout(500)
    after = page.page.locator(".wegen-frame:visible").first.bounding_box()
    assert after["width"] > 1.2 * before["width"]
    drag(page, (0.2, 0.2), (0.7, 0.6))
    near(boxes(page, compose), [[1, 0.2, 0.2, 0.5, 0.4]])
    page.page.screenshot(path=str(shoot("boxes-full-screen")))
    page.page.evaluate("document.exitFullscreen()")
    page.page.wait_for_function("!document.fullscreenElement")
