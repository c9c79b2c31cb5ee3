"""What the tests of the two editors do with the page: graphs, values of widgets, drags on the canvas, conversations."""

import json

EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4}
ADD = """([types, links]) => {
  const made = types.map(([type, pos, size]) => {
    const node = LiteGraph.createNode(type);
    node.pos = pos;
    app.graph.add(node);
    if (size) node.setSize(size);
    return node;
  });
  for (const [from, out, to, name] of links)
    made[from].connect(out, made[to], made[to].inputs.findIndex((i) => i.name === name));
  return made.map((n) => n.id);
}"""
VALUE = "([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value"
SET = "([id, name, value]) => { app.graph.getNodeById(id).widgets.find(w => w.name === name).value = value }"
SAVED = "() => JSON.parse(JSON.stringify(app.graph.serialize()))"
PENDING = "id => Boolean(app.graph.getNodeById(id).wegenSession.pending)"


def build(page, types, links=()):
    """New graph: [(type, [x, y], size?)…], links (from, output, to, input name). Returns the nodes' ids."""
    page.load(EMPTY)
    types = [[t[0], list(t[1]), list(t[2]) if len(t) > 2 else None] for t in types]
    ids = page.page.evaluate(ADD, [types, [list(link) for link in links]])
    page.page.wait_for_timeout(500)
    page.fit()
    return ids


def value(page, node, name):
    return page.page.evaluate(VALUE, [node, name])


def boxes(page, node):
    text = value(page, node, "canvas")
    return [[b["ref"], *(round(b[k], 3) for k in ("x", "y", "width", "height"))] for b in json.loads(text)["boxes"]] if text else []


def drag(page, start, end):
    """In fractions of the canvas."""
    rect = page.page.locator(".wegen-frame:visible").first.bounding_box()
    at = [(rect["x"] + fx * rect["width"], rect["y"] + fy * rect["height"]) for fx, fy in (start, end)]
    page.page.mouse.move(*at[0])
    page.page.mouse.down()
    page.page.mouse.move(*at[1], steps=5)
    page.page.mouse.up()


def near(found, wanted, tolerance=0.02):
    assert len(found) == len(wanted), (found, wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one[0] == other[0] and all(abs(a - b) <= tolerance for a, b in zip(one[1:], other[1:], strict=True)), (found, wanted)


def talk(page, types=(("WeGenLoadModel", (0, 0)), ("WeGenChatPanel", (320, 0)))):
    return build(page, types, [(0, 0, 1, "model")])[1]


def transcript(page, node):
    return page.page.evaluate(
        """id => { const { talk } = app.graph.getNodeById(id).wegenSession, table = new Map(talk.turns.map(t => [t.id, t])), path = [];
        for (let t = table.get(talk.head); t; t = table.get(t.parent)) path.unshift(t);
        return path }""",
        node,
    )


def wait(page, node):
    page.page.wait_for_function(f"id => !({PENDING})(id)", arg=node, timeout=400_000)


def say(page, node, text):
    page.page.locator("textarea.wegen-write:visible").first.fill(text)
    page.page.keyboard.press("Enter")
    wait(page, node)
