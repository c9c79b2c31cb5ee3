"""What the editors cost in the browser, as a report (no test): python -m wegen.tests.comfyui.measure_editors

Environment as in conftest.py. Measured: the scripts' size compressed; what evaluating their modules anew costs (Chromium's scripting
time), and how long the page's load waited for the files; every pointermove while a box is dragged over a 3840x2160 background, in
milliseconds of the page's own thread (from Chromium's trace: a busy machine does not show; ComfyUI's listeners are in it, layout and paint
are not). Chromium's scripting total for the drag is beside it.
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
OURS = """performance.getEntriesByType('resource').filter((e) => e.name.includes('/extensions/wegen/') && /\\.(js|css)$/.test(e.name))"""
IMPORT = """async ([paths, i]) => { for (const path of paths) await import(`/extensions/wegen/${path}?again=${i}`) }"""
# what the page's own load spent on our files: how many, and milliseconds from the first request to the last answer
LOADED = (
    """() => { const ours = %s;
  return { files: ours.length, ms: Math.round(Math.max(...ours.map((e) => e.responseEnd)) - Math.min(...ours.map((e) => e.startTime))),
    page_ms: Math.round(performance.timing.loadEventEnd - performance.timing.navigationStart) } }"""
    % OURS
)


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
        page.page.evaluate(
            SET, [node, "canvas", json.dumps({"boxes": boxes, "background": {"filename": "wide.jpg", "subfolder": "", "type": "input"}})]
        )
        page.page.wait_for_timeout(3000)
        session.send("Performance.enable")

        def scripting() -> float:
            return {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}["ScriptDuration"]

        rect = page.page.locator(".wegen-frame").first.bounding_box()
        x, y = rect["x"] + 0.4 * rect["width"], rect["y"] + 0.5 * rect["height"]
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        before = scripting()
        page.page.context.browser.start_tracing(page=page.page, categories=["devtools.timeline"])
        for i in range(120):
            page.page.mouse.move(x + (i % 40), y + (i % 30))
        trace = json.loads(page.page.context.browser.stop_tracing())["traceEvents"]
        after = scripting()
        page.page.mouse.up()
        moves = [e for e in trace if e["name"] == "EventDispatch" and e["args"]["data"]["type"] == "pointermove"]
        times = sorted(e["tdur"] / 1000 for e in moves)
        report |= {
            "moves": len(times),
            "move_ms_median": round(times[len(times) // 2], 2),
            "move_ms_worst": round(times[-1], 2),
            "scripting_ms_a_move": round(1000 * (after - before) / 120, 2),
        }
        spent, modules = [], [str(p.relative_to(JS)) for p in JS.rglob("*.js") if p.name not in ("wegen.js", "comfy.js")]
        for i in range(5):  # all modules anew, as a page load has them; what comfy.js imports is the frontend's
            before = scripting()
            page.page.evaluate(IMPORT, [modules, i])
            spent.append(1000 * (scripting() - before))
        report["import_scripting_ms_best_of_5"] = round(min(spent), 1)
        report["first_load"] = page.page.evaluate(LOADED)
        report["frontend"] = page.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(), indent=1) + "\n")
