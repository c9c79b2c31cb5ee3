"""What the nodes say of themselves, and what loading the pack costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import wegen
from wegen.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

NODES = sorted(NODE_CLASS_MAPPINGS.items())
DOCS = Path(wegen.__file__).parent / "js" / "docs"
# workflows store widget values by position: append, never reorder, never rename
WIDGETS = {
    "WeGenLoadModel": ["model", "dtype", "offload"],
    "WeGenLoadDecoder": ["decoder", "dtype", "offload", "preset"],
    "WeGenEncode": ["fit"],
    "WeGenChat": ["message", "picture", "rewrite", "temperature", "top_p", "seed", "max_tokens", "trim_oldest"],
    "WeGenDraw": ["guidance", "mode", "readout", "trim_oldest"],
    "WeGenDecode": [
        "seed",
        "use_defaults",
        "steps",
        "guidance_scale",
        "use_default_size",
        "width",
        "height",
        "scheduler",
        "negative",
        "time_ids",
    ],
    "WeGenFeaturesToConditioning": [],
    "WeGenDecoderToModel": [],
    "WeGenDecoderLora": ["lora", "strength"],
    "WeGenTrainDecoder": ["folder", "name", "steps", "learning_rate", "rank", "batch", "seed", "resolution", "preview_every"],
    "WeGenMixFeatures": ["amount", "method"],
    "WeGenFeatureArithmetic": ["amount"],
    "WeGenPreviewFeatures": ["size"],
    "WeGenSaveFeatures": ["filename_prefix"],
    "WeGenLoadFeatures": ["file"],
    "WeGenExamplePicture": ["picture"],
    "WeGenBboxCompose": ["prompt", "box_text", "bbox_format", "width", "height", "canvas"],
    "WeGenChatPanel": ["picture", "rewrite", "temperature", "guidance", "max_tokens", "trim_oldest", "transcript"],
}


def inputs(cls):
    declared = cls.INPUT_TYPES()
    return {name: entry for group in ("required", "optional") for name, entry in declared.get(group, {}).items()}


def test_the_named_nodes_are_there():
    assert {"EVA-CLIP Encode", "WeGen Chat", "AR Feature Decode", "SDXL Feature Decoder", "Bbox Compose"} < set(
        NODE_DISPLAY_NAME_MAPPINGS.values()
    )
    assert set(NODE_DISPLAY_NAME_MAPPINGS) == set(NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize("name, cls", NODES)
def test_node_describes_itself(name, cls):
    assert name.startswith("WeGen") and cls.CATEGORY == "WeGen"
    assert len(cls.DESCRIPTION) > 20 and cls.SEARCH_ALIASES
    assert len(cls.OUTPUT_TOOLTIPS) == len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
    assert all(tip.endswith(".") or tip.endswith(").") for tip in cls.OUTPUT_TOOLTIPS)
    lacking = [key for key, entry in inputs(cls).items() if len(entry[1].get("tooltip", "")) < 10]
    assert not lacking, f"{name}: no tooltip on {lacking}"


@pytest.mark.parametrize("name, cls", NODES)
def test_help_page_names_every_input_and_output(name, cls):
    page = (DOCS / f"{name}.md").read_text(encoding="utf8")
    assert page.startswith(f"# {NODE_DISPLAY_NAME_MAPPINGS[name]}\n")
    spoken = [key for key in (*inputs(cls), *cls.RETURN_NAMES) if key not in ("image_2", "image_3", "image_4")]
    assert not [key for key in spoken if f"**{key}**" not in page]


def test_no_help_page_without_a_node():
    assert {path.stem for path in DOCS.glob("*.md")} == set(NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize("name, cls", NODES)
def test_widgets_keep_their_places(name, cls):
    widgets = [key for key, (kind, *_) in inputs(cls).items() if not isinstance(kind, str) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN")]
    assert widgets == WIDGETS[name]


@pytest.mark.parametrize("name, cls", NODES)
def test_defaults_are_allowed_values(name, cls):
    for key, (kind, options) in inputs(cls).items():
        if not isinstance(kind, str):
            assert options.get("default", next(iter(kind), None)) in (kind or [None]), key  # a file picker may have nothing to offer
        elif kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], key


def test_optional_inputs_may_be_absent():
    """The function of each node takes its required inputs alone (ComfyUI leaves unconnected optional ones out)."""
    import inspect

    for name, cls in NODES:
        signature = inspect.signature(getattr(cls, cls.FUNCTION))
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        for key in cls.INPUT_TYPES().get("optional", {}):
            parameter = signature.parameters.get(key)
            assert takes_any if parameter is None else parameter.default is not parameter.empty, (name, key)


def test_importing_the_pack_imports_no_library():
    code = (
        "import sys, wegen; [c.INPUT_TYPES() for c in wegen.NODE_CLASS_MAPPINGS.values()]; "
        "sys.stdout.write(' '.join(m for m in ('diffusers', 'transformers', 'accelerate', 'PIL', 'comfy', 'folder_paths', "
        "'tokenizers', 'wegen.wegen_model.pipeline') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
