"""The nodes' own words as ComfyUI's locale files: `english()` is what locales/en/nodeDefs.json must hold.

python -m wegen.tests.locales        writes locales/en/nodeDefs.json anew, after a node's words have changed; then translate locales/zh
"""

from __future__ import annotations

import json
from pathlib import Path

from wegen.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, host

LOCALES = Path(__file__).parent.parent / "locales"
# tooltips that name public decoders and their numbers: they come from the server, with the table of formats that is installed
FROM_SERVER = {("WeGenLoadDecoder", "preset"), ("WeGenDecode", "negative"), ("WeGenDecode", "time_ids")}


def english() -> dict:
    """{node: {display_name, description, inputs: {name: {name, tooltip}}, outputs: {"0": {name, tooltip}}}}."""
    found = {}
    for node, cls in NODE_CLASS_MAPPINGS.items():
        declared = cls.INPUT_TYPES()
        inputs = {
            key: {"name": key, "tooltip": entry[1]["tooltip"]}
            for group in ("required", "optional")
            for key, entry in declared.get(group, {}).items()
        }
        for key, words in inputs.items():
            bundled = host.knows() and host.knows() in words["tooltip"]  # changes with the bundled weights: from the server too
            if bundled or (node, key) in FROM_SERVER:
                del words["tooltip"]
        pairs = zip(cls.RETURN_NAMES, cls.OUTPUT_TOOLTIPS, strict=True)
        outputs = {str(i): {"name": name, "tooltip": tip} for i, (name, tip) in enumerate(pairs)}
        found[node] = {"display_name": NODE_DISPLAY_NAME_MAPPINGS[node], "description": cls.DESCRIPTION, "inputs": inputs} | (
            {"outputs": outputs} if outputs else {}
        )
    return found


def read(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf8"))


def write(language: str, table: dict) -> None:
    path = LOCALES / language / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


if __name__ == "__main__":
    write("en", english())
