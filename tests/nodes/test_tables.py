"""What the nodes say of themselves, and what loading the pack costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import wegen
from wegen.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from wegen.nodes.decode import NEGATIVE_CHOICES, SCHEDULER_CHOICES, TIME_ID_CHOICES
from wegen.wegen_model.checkpoint.formats import inference_presets
from wegen.wegen_model.config import NEGATIVES, QUANTIZATIONS, SAMPLERS, TIME_IDS
from wegen.wegen_model.models import quantization

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
        "feather",
        "grow",
        "match_colours",
        "variations",
        "last_steps",
    ],
    "WeGenChangeMask": ["seed", "mode", "threshold", "grow"],
    "WeGenEditInBox": ["message", "seed", "guidance", "mode", "feather", "keep_features"],
    "WeGenKeepOriginal": ["feather", "grow", "match_colours"],
    "WeGenOriginalToLatent": ["width", "height", "inside"],
    "WeGenFeaturesToConditioning": [],
    "WeGenDecoderToModel": [],
    "WeGenDecoderLora": ["lora", "strength"],
    "WeGenTrainDecoder": [
        "folder",
        "name",
        "steps",
        "learning_rate",
        "rank",
        "batch",
        "seed",
        "resolution",
        "preview_every",
        "alpha",
        "aspect",
        "captions",
        "preview_count",
        "save_every",
        "choose_folder",
    ],
    "WeGenTrainSubject": ["folder", "subject", "steps", "learning_rate", "rank", "seed", "kind", "preview_every"],
    "WeGenModelLora": ["lora", "strength"],
    "WeGenMixFeatures": ["amount", "method"],
    "WeGenFeatureArithmetic": ["amount"],
    "WeGenPreviewFeatures": ["size"],
    "WeGenSaveFeatures": ["filename_prefix"],
    "WeGenLoadFeatures": ["file"],
    "WeGenExamplePicture": ["picture"],
    "WeGenBboxCompose": ["prompt", "box_text", "bbox_format", "width", "height", "canvas"],
    "WeGenSecondLook": ["strength"],
    "WeGenRegionalAttention": ["locality", "reference_strength"],
    "WeGenRegionalAttentionModel": ["locality", "reference_strength"],
    "WeGenChatPanel": [
        "picture",
        "rewrite",
        "temperature",
        "guidance",
        "max_tokens",
        "trim_oldest",
        "transcript",
        "keep_rest",
        "variations",
    ],
}


# what released workflows store in combos: these values stay, in this order, before any new one
CHOICES = {
    ("WeGenDecode", "scheduler"): ["from decoder", "euler", "euler ancestral", "ddim", "dpm++ 2m", "unipc", "ddpm"],
    ("WeGenDecode", "negative"): ["from decoder", "zeros", "blank picture"],
    ("WeGenDecode", "time_ids"): ["from decoder", "size", "trained", "zeros"],
    ("WeGenChangeMask", "mode"): ["paint", "probe"],
    ("WeGenEditInBox", "mode"): ["paint", "probe"],
    ("WeGenOriginalToLatent", "inside"): ["empty", "original"],
    ("WeGenLoadDecoder", "preset"): ["from checkpoint", "wegen", "emu2", "blip3o"],
    ("WeGenLoadDecoder", "dtype"): ["default", "float32", "bfloat16", "float16"],
    ("WeGenLoadModel", "dtype"): ["default", "float32", "bfloat16", "float16", "fp8", "q8_0", "q4_0"],
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
    spoken = [
        key for key in (*inputs(cls), *cls.RETURN_NAMES) if key not in (*(f"{what}_{k}" for what in ("image", "mask") for k in (2, 3, 4)),)
    ]
    assert not [key for key in spoken if f"**{key}**" not in page]


def test_no_help_page_without_a_node():
    assert {path.stem for path in DOCS.glob("*.md")} == set(NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize("name, cls", NODES)
def test_widgets_keep_their_places(name, cls):
    widgets = [key for key, (kind, *_) in inputs(cls).items() if not isinstance(kind, str) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN")]
    assert widgets == WIDGETS[name]


@pytest.mark.parametrize("node, widget", CHOICES)
def test_choices_keep_their_values_and_order(node, widget):
    shipped = CHOICES[node, widget]
    assert inputs(NODE_CLASS_MAPPINGS[node])[widget][0][: len(shipped)] == shipped


def test_the_decoder_s_choices_are_the_library_s():
    """Each choice of a node is an entry of the one table, and each entry a choice."""
    import diffusers

    own, *samplers = SCHEDULER_CHOICES.values()
    assert own is None and samplers == list(SAMPLERS.values()) and all(hasattr(diffusers, name) for name in samplers)
    assert list(NEGATIVE_CHOICES.values()) == [None, *NEGATIVES] and list(TIME_ID_CHOICES.values()) == [None, *TIME_IDS]
    decode, load = (inputs(NODE_CLASS_MAPPINGS[name]) for name in ("WeGenDecode", "WeGenLoadDecoder"))
    for widget, table in (("scheduler", SCHEDULER_CHOICES), ("negative", NEGATIVE_CHOICES), ("time_ids", TIME_ID_CHOICES)):
        assert decode[widget][0] == list(table)
    assert load["preset"][0] == ["from checkpoint", *inference_presets()]


def test_quantizations_are_one_table(capsys):
    """Loader, command line and arithmetic offer the same precisions."""
    from wegen.wegen_model.cli.main import main

    offered = inputs(NODE_CLASS_MAPPINGS["WeGenLoadModel"])["dtype"][0]
    plain = inputs(NODE_CLASS_MAPPINGS["WeGenLoadDecoder"])["dtype"][0]
    assert set(offered) - set(plain) == set(QUANTIZATIONS)
    assert quantization.MADE == tuple(name for name, kind in quantization.KINDS.items() if kind.make)
    assert [name.lower() for name in quantization.MADE] == list(QUANTIZATIONS)
    for command in (["convert", "--help"], ["bench", "precision", "--help"]):
        with pytest.raises(SystemExit):
            main(command)
        said = capsys.readouterr().out
        assert all(name in said for name in QUANTIZATIONS), command


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


@pytest.mark.parametrize(
    "term", "vlm,unified,emu,clip vision,describe,ip adapter,try on,style transfer,subject,consistency,instruct,inpaint,region".split(",")
)
def test_the_search_finds_a_node_by_what_people_call_it(term):
    assert [name for name, cls in NODES if any(term in alias for alias in cls.SEARCH_ALIASES)]


def test_each_socket_has_a_colour_of_its_own_in_both_renderers():
    import re

    from wegen.nodes import sockets

    script, style = ((DOCS.parent / name).read_text(encoding="utf8") for name in ("wegen.js", "wegen.css"))
    classic = dict(re.findall(r'(WEGEN_\w+): "(#[0-9a-f]{6})"', script))
    types = {sockets.MODEL, sockets.DECODER, sockets.FEATURES, sockets.REFERENCES, sockets.CHAT}
    assert set(classic) == types and len(set(classic.values())) == len(types)
    assert dict(re.findall(r"--color-datatype-(WEGEN_\w+): (#[0-9a-f]{6})", style)) == classic


def test_values_of_our_sockets_are_readable_as_text():
    """What Preview as Text shows of them."""
    import torch
    from wegen.wegen_model import Box, Conversation, Features, Reference

    features = Features(torch.zeros(2, 4, 8), (2, 2), "a@448/2x2x8", "tower")
    assert str(features) == "2 x 2x2 features of 8 numbers, space a@448/2x2x8, tower tower"
    references = (Reference(picture=torch.zeros(1, 20, 30, 3), box=Box(0, 0.25, 0.5, 0.5), label="panda"), Reference(features=features))
    assert str(references) == "(<panda: picture 30x20 at 0 0.25 0.5 0.5>, <reference: features>)"
    assert str(Conversation().user("what is <image_1>?", references)) == "You: what is <image_1>? [picture]"
