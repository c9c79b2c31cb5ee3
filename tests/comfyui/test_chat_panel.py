"""WeGen Chat Panel as a person uses it, in ComfyUI's own frontend, both renderers: pictures by drop, paste, drag and from the graph,
the @ menu, words and features while they are made, versions, edits, deletions, export.

Skipped as tests/comfyui/test_browser.py is. WEGEN_SHOTS=folder keeps the screenshots.
"""

import base64
import json
from pathlib import Path

import pytest
from wegen.tests.comfyui.editors import SET, build, say, talk, transcript, wait

pytestmark = pytest.mark.comfyui

PICTURES = Path(__file__).parents[2] / "workflows" / "pictures"
# A drop or paste of files, as the browser makes it: [selector, event, [[name, type, base64]…]]
GIVE = """([selector, kind, files]) => {
  const data = new DataTransfer();
  for (const [name, type, text] of files)
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
  const at = [...document.querySelectorAll(selector)].find((e) => e.getBoundingClientRect().width);
  const all = { bubbles: true, cancelable: true, composed: true, clipboardData: data, dataTransfer: data };
  return !at.dispatchEvent(kind === 'paste' ? new ClipboardEvent(kind, all) : new DragEvent(kind, all));
}"""
# Every state of the answer while it is made: {text, filled cells, a picture or none}
WATCH_GROWTH = """() => {
  window.__growth = [];
  const look = () => {
    const turn = document.querySelector('.wegen-turn.growing');
    if (!turn) return;
    const now = { state: turn.querySelector('.wegen-state').textContent, text: turn.querySelector('.wegen-text').textContent,
      cells: [...turn.querySelectorAll('.wegen-cells i')].filter((c) => c.style.backgroundColor).length,
      picture: Boolean(turn.querySelector('.wegen-made img:not([hidden])')) };
    if (JSON.stringify(now) !== JSON.stringify(window.__growth.at(-1))) window.__growth.push(now);
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""


def give(page, kind, *pictures, selector=".wegen-chat", type="image/png"):
    """Drop or paste files on the panel; whether it took them."""
    files = [[p.name, type, base64.b64encode(p.read_bytes()).decode()] for p in pictures]
    return page.page.evaluate(GIVE, [selector, kind, files])


def chips(page, n):
    page.page.wait_for_function(
        "n => [...document.querySelectorAll('.wegen-chips')].some(c => c.getBoundingClientRect().width && c.children.length === n)"
        " || (n === 0 && [...document.querySelectorAll('.wegen-chips')].every(c => c.hidden))",
        arg=n,
    )


def files_of(page, node):
    return page.page.evaluate("id => app.graph.getNodeById(id).wegenSession.files", node)


def box(page):
    return page.page.locator("textarea.wegen-write:visible").first


def test_pictures_by_drop_and_paste_and_their_tags(page, comfy, shoot):
    node = talk(page)
    fox, panda = PICTURES / "fox_on_beige.png", PICTURES / "panda.png"
    assert give(page, "dragover", fox), "the panel must say that it takes pictures"
    assert give(page, "drop", fox)
    chips(page, 1)
    assert give(page, "paste", panda, selector="textarea.wegen-write")
    chips(page, 2)
    files = files_of(page, node)
    assert [(f["subfolder"], f["type"]) for f in files] == [("wegen", "input")] * 2
    assert [(comfy.base / "input" / "wegen" / f["filename"]).read_bytes() for f in files] == [fox.read_bytes(), panda.read_bytes()]
    assert not page.page.evaluate("app.graph._nodes.some(n => n.type === 'LoadImage')"), "the graph must not take the picture too"

    box(page).press_sequentially("what is in @im")
    menu = page.page.locator(".wegen-menu:visible .wegen-option")
    assert menu.count() == 2 and menu.locator("img").count() == 2
    shoot("mention")
    box(page).press("ArrowDown")
    box(page).press("Enter")
    assert box(page).input_value() == "what is in <image_2>"
    box(page).press_sequentially("@x")
    box(page).press("Escape")
    assert page.page.locator(".wegen-menu:visible").count() == 0
    box(page).fill("what is in <image_2>?")
    page.page.get_by_label("Take image 1 away").first.click()
    chips(page, 1)
    box(page).fill("what is in <image_1>?")
    box(page).press("Enter")
    wait(page, node)
    asked, answered = transcript(page, node)
    assert asked["pictures"] == files[1:] and asked["text"] == "what is in <image_1>?" and answered["text"]
    chips(page, 0)
    assert page.page.locator(".wegen-turn.user .wegen-tag:visible").first.inner_text() == "image 1"
    shoot("asked")
    assert page.errors() == []


def test_what_is_no_picture_or_too_much_is_not_attached(page):
    node = talk(page)
    assert not give(page, "drop", Path(__file__), type="text/plain")
    for _ in range(3):
        give(page, "drop", *sorted(PICTURES.glob("*.png"))[:3])
        page.page.wait_for_timeout(700)
    chips(page, 8)
    assert len(files_of(page, node)) == 8
    page.page.wait_for_function("document.body.innerText.includes('A message takes 8 pictures.')")


def test_a_pasted_picture_of_the_real_clipboard(page, comfy):
    """Ctrl+C somewhere else, Ctrl+V in the box: the browser's own clipboard."""
    node = talk(page)
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=comfy.url)
    data = base64.b64encode((PICTURES / "fox_on_beige.png").read_bytes()).decode()
    page.page.evaluate(
        """async text => { const blob = await (await fetch('data:image/png;base64,' + text)).blob();
      await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]) }""",
        data,
    )
    box(page).click()
    page.page.keyboard.press("Control+v")
    chips(page, 1)
    assert files_of(page, node)[0]["subfolder"] == "wegen"
    assert not page.page.evaluate("app.graph._nodes.some(n => n.type === 'LoadImage')"), "the graph must not paste it too"


def test_the_answer_grows_while_it_is_made(page, comfy, shoot):
    """Words, then features, then the picture: each more than what was there before."""
    node = talk(page)
    give(page, "drop", PICTURES / "boat_and_panda.png")
    chips(page, 1)
    comfy.free()
    page.page.evaluate(WATCH_GROWTH)
    page.page.evaluate(
        """id => { const s = app.graph.getNodeById(id).wegenSession, ask = app.queuePrompt;
      app.queuePrompt = async function (...rest) { // the miniature's words may all come within a tenth of a second: two are told slowly
        app.queuePrompt = ask;
        for (const text of ['a', 'a sail']) {
          s.progress({ turn: s.pending.turn, kind: 'text', i: 1, n: 9, text });
          await new Promise((done) => setTimeout(done, 50));
        }
        return ask.apply(this, rest);
      } }""",
        node,
    )
    say(page, node, "what is in the picture?")
    texts = [g["text"] for g in page.page.evaluate("window.__growth")]
    assert "a" in texts and "a sail" in texts[texts.index("a") :], texts
    assert transcript(page, node)[1]["text"] not in ("", "a", "a sail"), "the whole answer takes their place"

    page.page.evaluate("window.__growth.length = 0")
    say(page, node, "a fox on a teal background")
    grown = page.page.evaluate("window.__growth")
    cells = [g["cells"] for g in grown]
    assert cells == sorted(cells) and cells[-1] == 64 and len(set(cells)) > 2, cells
    assert any(g["picture"] for g in grown), "no picture while it was painted"
    turn = transcript(page, node)[3]
    assert len(turn["cells"]) == 64 and len(turn["pictures"]) == 1
    assert page.page.locator(".wegen-turn.growing").count() == 0
    shoot("grown")
    assert page.errors() == []


def test_an_answer_that_outruns_the_queue_stays(page):
    """The queue was asked while the run was in it, its answer is read after the message was answered: nothing is taken back."""
    node = talk(page)
    page.page.evaluate(
        """id => { const ask = app.api.fetchApi, { wegenSession: session } = app.graph.getNodeById(id);
      app.api.fetchApi = async function (path, ...rest) {
        const answer = await ask.call(this, path, ...rest);
        if (path === '/queue') while (session.pending) await new Promise((done) => setTimeout(done, 20));
        return answer;
      };
      window.__unhold = () => { app.api.fetchApi = ask } }""",
        node,
    )
    say(page, node, "a fox on a teal background")
    page.page.wait_for_timeout(2500)
    page.page.evaluate("window.__unhold()")
    assert [t["role"] for t in transcript(page, node)] == ["user", "assistant"]
    assert page.page.evaluate("id => app.graph.getNodeById(id).wegenSession.trouble", node) == ""


def test_what_is_long_scrolls_inside_its_node(page, shoot):
    """A long conversation and a long list of boxes: the nodes stay as large as they were."""
    panel, compose = build(page, [("WeGenChatPanel", (0, 0)), ("WeGenBboxCompose", (560, 0))])
    size = """() => ['.wegen-chat', '.wegen-boxes'].map((s) => [...document.querySelectorAll(s)].find((e) => e.offsetWidth).offsetHeight)"""
    before = page.page.evaluate(size)
    page.page.evaluate(
        SET, [panel, "transcript", json.dumps([{"role": ("user", "assistant")[i % 2], "text": f"{i} and more " * 12} for i in range(24)])]
    )
    page.page.evaluate(
        SET,
        [
            compose,
            "canvas",
            json.dumps({"boxes": [{"ref": k, "x": 0.04 * k, "y": 0.04 * k, "width": 0.2, "height": 0.2} for k in range(1, 18)]}),
        ],
    )
    page.page.wait_for_timeout(1000)
    shoot("long")
    after = page.page.evaluate(size)
    assert all(abs(a - b) <= 2 for a, b in zip(before, after, strict=True)), (before, after)
    ends = page.page.evaluate(
        "() => { const list = [...document.querySelectorAll('.wegen-turns')].find((e) => e.offsetWidth);"
        " return [list.scrollHeight, list.scrollTop + list.clientHeight] }"
    )
    assert ends[0] > 1000 and ends[0] - ends[1] < 4, "the end of the conversation is in sight"


TALK = [("user", "a fox on a teal background"), ("assistant", "here *it* is"), ("user", "make the background blue"), ("assistant", "done")]


def told(page, comfy):
    """A panel with two exchanges and their pictures, nothing run."""
    for name, source in (("fox", "fox_on_beige"), ("panda", "panda")):
        comfy.upload(PICTURES / f"{source}.png", f"wegen-told-{name}.png")
    rows = [{"role": role, "text": text} for role, text in TALK]
    for row, name in ((rows[1], "fox"), (rows[3], "panda")):
        row["pictures"] = [{"filename": f"wegen-told-{name}.png", "subfolder": "", "type": "input"}]
        row["cells"] = ["#d06a%02x" % (3 * i) for i in range(64)]
    node = talk(page)
    page.page.evaluate(SET, [node, "transcript", json.dumps(rows)])
    return node


def test_the_end_stays_in_sight_while_a_picture_comes(page, comfy):
    """Its height is known before it is loaded, and a scroll event may fall between; who scrolled up stays where he is."""
    told(page, comfy)
    page.page.wait_for_timeout(1000)
    grow = """(up) => { const list = [...document.querySelectorAll('.wegen-turns')].find((e) => e.offsetWidth);
      if (up) list.scrollTop -= up;
      return new Promise((done) => setTimeout(() => {
        list.lastChild.style.minHeight = `${list.lastChild.offsetHeight + 300}px`;
        list.dispatchEvent(new Event('scroll'));
        list.querySelector('img').dispatchEvent(new Event('load'));
        done(list.scrollHeight - list.scrollTop - list.clientHeight);
      }, 300)) }"""
    assert page.page.evaluate(grow, 0) < 4
    assert page.page.evaluate(grow, 150) > 400


def test_edit_delete_export_and_clear(page, comfy, shoot):
    node = told(page, comfy)
    texts = lambda: [t["text"] for t in transcript(page, node)]  # noqa: E731
    edit = page.page.get_by_label("Edit this message")
    edit.first.click()
    assert box(page).input_value() == TALK[0][1]
    box(page).press("Escape")
    assert box(page).input_value() == "" and texts() == [t for _, t in TALK]

    with page.page.expect_download() as kept:
        page.page.get_by_label("Export as Markdown").first.click()
    lines = Path(kept.value.path()).read_text(encoding="utf8")
    assert kept.value.suggested_filename == "wegen-chat.md"
    assert lines.startswith("**You**\n\na fox on a teal background\n\n---\n\n**WeGen**\n\nhere \\*it\\* is\n\n![wegen-told-fox.png](<http")

    edit.nth(1).click()
    box(page).fill("make the background pink")
    box(page).press("Enter")
    wait(page, node)
    edited = transcript(page, node)
    assert [t["text"] for t in edited[:3]] == [TALK[0][1], TALK[1][1], "make the background pink"] and len(edited[3]["pictures"]) == 1
    assert page.page.locator(".wegen-versions:visible").first.inner_text().strip() == "2/2"
    shoot("edited")
    page.page.get_by_label("Delete this message and what follows").nth(1).click()
    assert texts() == [t for _, t in TALK], "the other version comes back"
    page.page.get_by_label("Delete this answer and what follows").nth(1).click()
    assert texts() == [t for _, t in TALK[:2]], "a message without its answer goes too"

    page.page.get_by_label("Clear the conversation").first.click()
    assert texts(), "clearing asks once"
    page.page.get_by_label("Clear the conversation").first.click()
    assert texts() == [] and page.page.locator(".wegen-hint:visible").count() == 1
    page.page.evaluate("app.canvas.canvas.focus()")
    assert page.errors() == []


def test_undo_and_the_first_one_go_back_and_the_talk_goes_on_from_there(page, comfy, shoot):
    node = told(page, comfy)
    fox, panda = (t["pictures"][0]["filename"] for t in transcript(page, node) if t["pictures"])
    say(page, node, "Undo!")
    undone = transcript(page, node)[-1]
    assert undone["text"].startswith("Taken back. You last said") and [p["filename"] for p in undone["pictures"]] == [fox]
    say(page, node, "picture 9")
    assert transcript(page, node)[-1]["text"].startswith("There is no picture 9: 2 were drawn")
    say(page, node, "the second one")
    assert [p["filename"] for p in transcript(page, node)[-1]["pictures"]] == [panda]
    say(page, node, "make the background yellow")
    assert len(transcript(page, node)[-1]["pictures"]) == 1
    shoot("went-back")
    assert page.errors() == []


def test_a_picture_is_dragged_onto_load_image_and_back(page, comfy, shoot):
    if page.early_nodes2:
        pytest.skip("the Nodes 2.0 of this frontend takes no drop on a node, ComfyUI's own files neither")
    node = told(page, comfy)
    load = page.page.evaluate("""() => { const n = LiteGraph.createNode('LoadImage'); n.pos = [0, 200]; app.graph.add(n); return n.id }""")
    page.fit()
    at = page.page.evaluate(
        """id => { const n = app.graph.getNodeById(id), o = app.canvas.canvas.getBoundingClientRect();
      const { scale, offset } = app.canvas.ds;
      return [(n.pos[0] + n.size[0] / 2 + offset[0]) * scale + o.left, (n.pos[1] + 30 + offset[1]) * scale + o.top] }""",
        load,
    )
    picture = page.page.locator(".wegen-made img:visible").last
    picture.scroll_into_view_if_needed()
    rect = picture.bounding_box()
    page.page.mouse.move(rect["x"] + 20, rect["y"] + 20)
    page.page.mouse.down()
    page.page.mouse.move(at[0] + 8, at[1], steps=8)
    page.page.mouse.move(*at, steps=3)
    page.page.mouse.up()
    page.page.wait_for_function("id => app.graph.getNodeById(id).widgets[0].value === 'wegen-told-panda.png'", arg=load, timeout=60_000)
    assert page.page.evaluate("app.graph._nodes.length") == 3, "nothing else may take the drop"
    page.page.wait_for_timeout(500)
    page.page.get_by_label("Attach a picture that a node of the graph shows").first.click()  # and from the graph
    page.page.locator(".wegen-menu:visible .wegen-option").first.click()
    chips(page, 1)
    assert files_of(page, node)[0]["filename"] == "wegen-told-panda.png"
    page.page.get_by_label("Attach this picture to the next message").first.click()
    chips(page, 2)
    shoot("attached")
    assert page.errors() == []


def test_the_sidebar_asks_and_follows(page, comfy, shoot):
    node = told(page, comfy)
    page.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.wegen-chat')")
    tab = page.page.locator(".wegen-tab")
    tab.locator(".wegen-turn").nth(3).wait_for()
    tab.locator("textarea").fill("make the background yellow")
    tab.locator("textarea").press("Enter")
    wait(page, node)
    assert len(transcript(page, node)) == 6
    count = "where => document.querySelectorAll(where + ' .wegen-turn').length"
    assert page.page.evaluate(count, ".wegen-tab") == 6
    assert page.page.evaluate("id => app.graph.getNodeById(id).wegenSession.views.size", node) == 2
    shoot("sidebar-asks")
    page.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.wegen-chat')")
    assert page.errors() == []


def test_a_lost_picture_is_named(page):
    node = talk(page)
    gone = {"filename": "gone.png", "subfolder": "wegen", "type": "output"}
    page.page.evaluate(
        SET, [node, "transcript", json.dumps([{"role": "user", "text": "a fox"}, {"role": "assistant", "text": "", "pictures": [gone]}])]
    )
    page.page.locator(".wegen-lost:visible").first.wait_for()
    assert page.page.locator(".wegen-lost:visible").first.inner_text() == "gone.png is no longer there"
    page.console.clear()  # the browser's own 404


def test_the_lock_keeps_what_is_not_touched_and_the_slider_compares(page, comfy, shoot):
    """The lock is the node's widget; with it the answer's file equals the attached picture wherever nothing changes."""
    import numpy as np
    from PIL import Image

    node = talk(page)
    lock = page.page.get_by_label("Leave what an edit does not touch as it is").first
    assert lock.get_attribute("aria-pressed") == "false"
    lock.click()
    assert lock.get_attribute("aria-pressed") == "true"
    assert page.page.evaluate("id => app.graph.getNodeById(id).widgets.find(w => w.name === 'keep_rest').value", node) is True
    fox = PICTURES / "fox_on_beige.png"
    give(page, "drop", fox)
    chips(page, 1)
    say(page, node, "<image_1> paint the fox blue")
    (made,) = transcript(page, node)[1]["pictures"]
    before, after = (
        np.asarray(Image.open(p).convert("RGB")) for p in (fox, comfy.base / made["type"] / made["subfolder"] / made["filename"])
    )
    same = (before == after).all(-1)
    assert 0.4 < same.mean() < 0.95 and same[:10].all() and same[-10:].all()
    page.page.locator(".wegen-turn.assistant:visible").first.hover()
    page.page.get_by_label("Compare with the picture before").first.click()
    slider = page.page.locator(".wegen-compare input:visible").first
    slider.fill("80")
    clip = page.page.locator(".wegen-before:visible").first.evaluate("e => getComputedStyle(e).clipPath")
    assert "20%" in clip or "calc" in clip, clip
    sizes = page.page.evaluate(
        """() => [...document.querySelectorAll('.wegen-compare img')].filter((e) => e.offsetWidth).map((e) => {
        const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height] })"""
    )
    assert len(sizes) == 2 and all(abs(a - b) < 2 for a, b in zip(*sizes, strict=True)), sizes
    shoot("compared")
    page.page.get_by_label("Compare with the picture before").first.click()
    assert page.page.locator(".wegen-compare").count() == 0
    assert page.errors() == []
