"""The browser code's modules without DOM (js/boxes, js/chat), by node's own test runner; both readers of a value agree."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from wegen.wegen_model.chat.boxes import parse_boxes
from wegen.wegen_model.chat.canvas_state import digest, parse_placement

TESTS = Path(__file__).parent / "js"
NODE = shutil.which("node")
need_node = pytest.mark.skipif(NODE is None, reason="needs node (18 or later) on the PATH for the tests of js/: it was not found")


def evaluate(code: str):
    """JSON that an ES module in tests/js would print."""
    done = subprocess.run([NODE, "--input-type=module", "-e", code], cwd=TESTS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@need_node
@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.mjs")), ids=lambda p: p.name)
def test_modules_without_dom(path):
    done = subprocess.run([NODE, "--test", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "\n# fail 0" in done.stdout and "\n# pass 0" not in done.stdout


@need_node
def test_both_sides_make_the_same_digest():
    text = "0.05 0.3 0.4 0.6\n\n0.33333 0.1 0.66667 0.2"
    code = "import {readText} from '../../js/boxes/reading.js'; import {digest} from '../../js/boxes/state.js';"
    there = evaluate(f"{code} process.stdout.write(JSON.stringify(digest(readText({json.dumps(text)}, 1024, 1024))))")
    assert there == digest(parse_boxes(text, 1024, 1024)) == "1:500,3000,4000,6000;3:3333,1000,6667,2000"


@need_node
def test_the_server_reads_what_the_canvas_writes():
    code = (
        "import * as S from '../../js/boxes/state.js';"
        "const a = S.add(S.parse(''), {x: .1, y: .2, width: .3, height: .4, label: '\u0436'}, [2]);"
    )
    text = evaluate(f"{code} process.stdout.write(JSON.stringify(S.serialise(a.state)))")
    read = parse_placement(text)
    assert read.labels == ("", "\u0436") and read.boxes[0] is None and read.boxes[1].width == pytest.approx(0.3) and not read.ignored
