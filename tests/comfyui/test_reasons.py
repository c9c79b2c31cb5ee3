"""Why a node refused stands on it, in both renderers, until the next run; and what an unchanged graph does when it is queued again."""

import pytest
from wegen.tests.comfyui.editors import SAVED, SET, build

pytestmark = pytest.mark.comfyui

NODES = [
    ("WeGenLoadModel", (0, 0)),
    ("WeGenChat", (460, 0)),
    ("WeGenDraw", (980, 0)),
    ("WeGenDecode", (1440, 0)),
    ("PreviewImage", (1900, 0)),
]
LINKS = [(0, 0, 1, "model"), (1, 0, 2, "chat"), (2, 0, 3, "features"), (0, 0, 3, "decoder"), (3, 0, 4, "images")]
WHY = """() => Object.fromEntries(app.graph._nodes.flatMap((n) => (n.widgets ?? []).filter((w) => w.name === 'why_not')
  .map((w) => [n.type, w.element.textContent])))"""
SEEN = (
    "() => [...document.querySelectorAll('.wegen-why')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height > 10).length"
)
UNPLUG = "([id, name]) => { const n = app.graph.getNodeById(id); n.disconnectInput(n.inputs.findIndex((i) => i.name === name)) }"
CACHED = "() => { window.__cached = []; app.api.addEventListener('execution_cached', (e) => window.__cached.push(e.detail.nodes)) }"


def test_the_sentence_stands_on_the_node_until_the_next_run(page, shoot):
    load, chat, *_ = build(page, NODES, LINKS)
    sizes = page.page.evaluate("app.graph._nodes.map((n) => [...n.size])")
    assert page.run() == "error"
    assert page.page.evaluate(WHY) == {"WeGenChat": "the message is empty: write what you want, or attach a picture."}
    page.close_windows()
    page.fit()
    assert page.page.evaluate(SEEN) == 1
    assert not page.overlaps()
    shoot("why-run")
    saved = page.page.evaluate(SAVED)
    assert not any("the message is empty" in str(node) for node in saved["nodes"]), "it is not saved"
    page.page.evaluate(SET, [load, "model", "gone"])  # a model that is not there is refused before anything runs
    assert page.run() == "refused"
    said = page.page.evaluate(WHY)
    assert list(said) == ["WeGenLoadModel"] and "there is no model folder 'gone'" in said["WeGenLoadModel"]
    page.close_windows()
    page.fit()
    shoot("why-refused")
    page.page.evaluate(SET, [load, "model", "wegen-mini"])
    page.page.evaluate(SET, [chat, "message", "a fox on a teal background"])
    page.page.evaluate(
        "id => { const n = app.graph.getNodeById(id); n.setSize([n.size[0], n.size[1] + 20]) }", load
    )  # a person's own size stays
    assert page.run() == "success"
    assert page.page.evaluate(WHY) == {}
    if not page.vue:  # elsewhere what nodes show gives them their height
        after = page.page.evaluate("app.graph._nodes.map((n) => [...n.size])")
        assert after[0][1] == sizes[0][1] + 20
    assert page.errors() == []


def test_inside_a_subgraph_it_stands_on_both(page, shoot):
    ids = build(page, NODES, LINKS)
    page.page.evaluate("ids => { app.graph.convertToSubgraph(new Set(ids.map((i) => app.graph.getNodeById(i)))) }", ids[1:4])
    page.page.wait_for_timeout(500)
    assert page.run() == "error"
    page.close_windows()
    page.fit()
    shoot("why-subgraph")
    (said,) = page.page.evaluate(WHY).values()
    assert said == "WeGen Chat: the message is empty: write what you want, or attach a picture."
    inner = page.page.evaluate("""() => { const host = app.graph._nodes.find((n) => n.subgraph);
      return host.subgraph._nodes.find((n) => n.type === 'WeGenChat').widgets.find((w) => w.name === 'why_not')?.element.textContent }""")
    assert inner == "the message is empty: write what you want, or attach a picture."
    page.close_windows()


def test_a_chat_does_not_answer_where_all_that_follows_was_refused(page):
    _, chat, _, decode, _ = build(page, NODES, LINKS)
    page.page.evaluate(SET, [chat, "message", "a fox on a lime background"])
    page.page.evaluate(UNPLUG, [decode, "decoder"])
    assert page.run() in ("error", "refused")  # both: the decoder's output before it runs, the chat then
    page.page.wait_for_function(f"() => ({WHY})().WeGenChat")
    said = page.page.evaluate(WHY)
    assert said["WeGenDecode"] == "decoder: nothing is connected here."
    assert said["WeGenChat"].startswith("not run, because nothing that follows can run: Preview Image (#5).")
    page.close_windows()


def test_an_unchanged_graph_queued_again_runs_nothing(page, comfy):
    """With the defaults, and with AR Feature Decode's model taken from the conversation."""
    _, chat, draw, *_ = build(page, NODES, LINKS)
    assert page.page.evaluate("id => app.graph.getNodeById(id).inputs[0].name", draw) == "model", "its socket stays the first"
    page.page.evaluate(SET, [chat, "message", "a fox on a teal background"])
    comfy.free()
    page.close_windows()
    assert page.run() == "success", page.broken()
    assert page.pictures() > 0
    page.page.evaluate(CACHED)
    assert page.run() == "success"
    assert sorted(page.page.evaluate("window.__cached")[0]) == ["1", "2", "3", "4", "5"]
    saved = page.page.evaluate(SAVED)
    saved["nodes"][1]["widgets_values"][6] = "randomize"  # what a person saved is kept
    page.load(saved)
    controls = page.page.evaluate("app.graph._nodes.map((n) => n.widgets?.find((w) => w.name === 'control_after_generate')?.value)")
    assert [c for c in controls if c] == ["randomize", "fixed"]
