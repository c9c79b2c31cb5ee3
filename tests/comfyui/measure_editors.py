"""What the editors cost in the browser, as a report (no test): python -m wegen.tests.comfyui.measure_editors

Environment as in conftest.py. Measured: the scripts' size compressed, the time their modules take of a page load, our pointer
handlers while a box is dragged over a 3840x2160 background, in milliseconds (performance.now around the handlers, so layout and
paint are not in it; Chromium's own scripting total for the drag is beside it). A busy machine shows in the worst, not in the median.
"""

import gzip
import io
import json
import sys
from pathlib import Path

from wegen.tests.comfyui.browser import Frontend
from wegen.tests.comfyui.editors import SET, build
from wegen.tests.comfyui.server import ComfyServer

JS = Path(__file__).parents[2] / "js"
TIME = """() => {
  window.__times = [];
  const frame = document.querySelector('.wegen-frame');
  // capture at the window opens the clock, a listener that comes after all others closes it
  let start = 0;
  addEventListener('pointermove', () => (start = performance.now()), true);
  addEventListener('pointermove', () => window.__times.push(performance.now() - start));
  frame.addEventListener('pointermove', () => window.__times.push(performance.now() - start));
}"""


def main() -> dict:
    scripts = [p for p in JS.rglob("*") if p.suffix in (".js", ".css")]
    report = {"files": len(scripts), "compressed_kB": round(sum(len(gzip.compress(p.read_bytes(), 9)) for p in scripts) / 1000, 1)}
    with ComfyServer.from_environment() as server:
        from PIL import Image

        out = io.BytesIO()
        Image.effect_noise((3840, 2160), 90).convert("RGB").save(out, "JPEG", quality=85)
        (server.base / "input" / "wide.jpg").write_bytes(out.getvalue())
        for vue in (False, True):
            report["nodes2" if vue else "classic"] = measure(server, vue)
    return report


def measure(server: ComfyServer, vue: bool) -> dict:
    report = {}
    with Frontend(server, vue=vue) as page:
        session = page.page.context.new_cdp_session(page.page)
        (node,) = build(page, [("WeGenBboxCompose", (0, 0))])
        boxes = [{"ref": k, "x": 0.05 * k, "y": 0.05 * k, "width": 0.3, "height": 0.3, "label": f"box {k}"} for k in range(1, 6)]
        page.page.evaluate(SET, [node, "canvas", json.dumps({"boxes": boxes, "background": {
            "filename": "wide.jpg", "subfolder": "", "type": "input"}})])
        page.page.wait_for_timeout(3000)
        page.page.evaluate(TIME)
        session.send("Performance.enable")

        def scripting() -> float:
            return {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}["ScriptDuration"]

        rect = page.page.locator(".wegen-frame").first.bounding_box()
        x, y = rect["x"] + 0.4 * rect["width"], rect["y"] + 0.5 * rect["height"]
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        before = scripting()
        page.page.evaluate("window.__times.length = 0")
        for i in range(120):
            page.page.mouse.move(x + (i % 40), y + (i % 30))
        after = scripting()
        page.page.mouse.up()
        times = sorted(page.page.evaluate("window.__times"))
        report |= {"moves": len(times), "handler_ms_median": round(times[len(times) // 2], 2), "handler_ms_worst": round(times[-1], 2),
                   "scripting_ms_a_move": round(1000 * (after - before) / 120, 2)}
        report["module_ms"] = page.page.evaluate("""async () => { const t = performance.now();
          const names = ['comfy', 'dom', 'features', 'old_nodes2', 'boxes/editor', 'boxes/stage', 'boxes/list', 'boxes/state',
            'boxes/geometry', 'boxes/reading', 'boxes/widget', 'chat/panel', 'chat/turn', 'chat/composer', 'chat/session',
            'chat/transcript', 'chat/graph', 'chat/widget'];
          await Promise.all(names.map((n) => fetch(`/extensions/wegen/${n}.js`).then((r) => r.text())));
          const fetched = performance.now();
          const once = async (i) => { const from = performance.now();
            for (const n of names.filter((n) => n !== 'comfy')) await import(`/extensions/wegen/${n}.js?again=${i}`);
            return performance.now() - from };
          const runs = [];
          for (let i = 0; i < 5; i++) runs.push(await once(i));
          return { fetch: Math.round(fetched - t), import_again_best_of_5: Math.round(Math.min(...runs)) } }""")
        report["frontend"] = page.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(), indent=1) + "\n")
