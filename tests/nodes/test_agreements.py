"""What stands in two places and must say the same: widgets and signatures, nodes and library, nodes and command line, choices and tables."""

import inspect

import pytest
from wegen.nodes import NODE_CLASS_MAPPINGS, feature_files, ui_messages
from wegen.wegen_model import config
from wegen.wegen_model.chat import box_forms, boxes, chat_state
from wegen.wegen_model.cli import main as cli
from wegen.wegen_model.features import Features
from wegen.wegen_model.generation import feature_ops
from wegen.wegen_model.models.regional_attention import RegionalAttention
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.second_look import look_again
from wegen.wegen_model.workflow import Folders
from wegen.wegen_model.workflow.spec import FOLDERS, inputs_of


def defaults(function) -> dict:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def widgets(node: str) -> dict:
    """{widget: its default}, of those that declare one."""
    return {i.name: i.options["default"] for i in inputs_of(NODE_CLASS_MAPPINGS[node]).values() if "default" in i.options}


def function(node: str):
    cls = NODE_CLASS_MAPPINGS[node]
    return getattr(cls, cls.FUNCTION)


@pytest.mark.parametrize("node", NODE_CLASS_MAPPINGS)
def test_a_widget_and_the_functions_argument_have_one_default(node):
    """An API prompt that leaves an optional widget out gets the function's; the canvas shows the widget's."""
    in_code = defaults(function(node))
    twice = {name: (value, in_code[name]) for name, value in widgets(node).items() if name in in_code}
    assert {name: pair for name, pair in twice.items() if pair[0] != pair[1] or type(pair[0]) is not type(pair[1])} == {}


def test_the_comparison_of_defaults_sees_them():
    assert sum(name in defaults(function(node)) for node in NODE_CLASS_MAPPINGS for name in widgets(node)) > 40


LIBRARY = [
    ("WeGenEncode", WeGen.encode),
    ("WeGenChat", WeGen.chat),
    ("WeGenDraw", WeGen.draw),
    ("WeGenChatPanel", WeGen.chat),
    ("WeGenChatPanel", WeGen.draw),
    ("WeGenDecode", WeGenDecoder.decode),
    ("WeGenDecoderLora", WeGenDecoder.with_lora),
    ("WeGenModelLora", WeGen.with_lora),
    ("WeGenMixFeatures", feature_ops.mix),
    ("WeGenFeatureArithmetic", feature_ops.arithmetic),
    ("WeGenPreviewFeatures", feature_ops.portrait),
    ("WeGenBboxCompose", boxes.compose),
    ("WeGenSecondLook", look_again),
    ("WeGenRegionalAttention", RegionalAttention),
    ("WeGenRegionalAttentionModel", RegionalAttention),
]
# A default of a node that is meant to differ from the library's: (node's, library's, why). Workflows and API prompts rest on the node's.
INTENDED = {
    ("WeGenChat", "max_tokens"): (128, 256, "room for the answer is taken from the conversation, which in a graph has several turns"),
    ("WeGenChatPanel", "max_tokens"): (128, 256, "as WeGen Chat"),
    ("WeGenChatPanel", "trim_oldest"): (True, False, "a chat goes on; a graph has its turns in sight and stops rather than forgets"),
    ("WeGenDecode", "steps"): (20, None, "counts only with use_defaults off; None is the decoder's own"),
    ("WeGenDecode", "guidance_scale"): (3.0, None, "as steps"),
    ("WeGenDecode", "width"): (1024, None, "counts only with use_default_size off"),
    ("WeGenDecode", "height"): (1024, None, "as width"),
    ("WeGenDecode", "scheduler"): ("from decoder", None, "the widget's word for None"),
    ("WeGenDecode", "negative"): ("from decoder", None, "as scheduler"),
    ("WeGenDecode", "time_ids"): ("from decoder", None, "as scheduler"),
    ("WeGenRegionalAttention", "locality"): (1.0, 0.0, "who adds the node wants the bias; the library's is off"),
    ("WeGenRegionalAttentionModel", "locality"): (1.0, 0.0, "as WeGen Regional Attention"),
    ("WeGenPreviewFeatures", "size"): (256, 512, "a preview among other nodes; the library's is for a file"),
}


def test_nodes_and_library_differ_only_where_meant():
    found = {}
    for node, call in LIBRARY:
        theirs = defaults(call)
        found |= {(node, name): (value, theirs[name]) for name, value in widgets(node).items() if name in theirs and value != theirs[name]}
    assert found == {key: row[:2] for key, row in INTENDED.items()}


def test_the_command_line_talks_with_the_librarys_defaults_and_forgets_the_oldest(monkeypatch, tmp_path):
    """As the panel: a chat goes on. What `wegen chat` gives the library beside that is the library's own default."""
    given = {}

    class Model:
        config = config.PRESETS["tiny"]

        def chat(self, talk, **options):
            given["chat"] = options
            raise ValueError("heard")

    monkeypatch.setattr(WeGen, "load", lambda *_, **__: Model())
    answers = iter(["hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(answers))
    assert cli.main(["chat", "--out", str(tmp_path)]) == 0
    theirs = defaults(WeGen.chat)
    assert {name: value for name, value in given["chat"].items() if value != theirs[name]} == {"trim_oldest": True}


def test_command_line_defaults_are_the_librarys():
    for command, call, arguments in (
        ("encode", WeGen.encode, ["a", "b"]),
        ("decode", WeGenDecoder.decode, ["a", "b"]),
        ("chat", WeGen.draw, []),
    ):
        parsed, theirs = vars(cli._parser().parse_args([command, *arguments])), defaults(call)
        assert {name: parsed[name] for name in parsed if name in theirs} == {name: theirs[name] for name in theirs if name in parsed}, (
            command
        )


def test_choices_are_the_librarys_tables():
    """Samplers, negatives, size numbers, presets and precisions are made from their tables; these two are written out on the node."""
    assert tuple(inputs_of(NODE_CLASS_MAPPINGS["WeGenBboxCompose"])["bbox_format"].choices) == box_forms.FORMATS
    assert tuple(inputs_of(NODE_CLASS_MAPPINGS["WeGenMixFeatures"])["method"].choices) == feature_ops.METHODS


def test_hidden_folders_have_one_name(tmp_path):
    assert feature_files.HIDDEN == {"folders": FOLDERS}
    given = Folders((tmp_path / "a", tmp_path / "b"), tmp_path / "out")
    assert feature_files.folders_of(given) == {"input": [tmp_path / "a", tmp_path / "b"], "output": [tmp_path / "out"]}


def test_places_of_pictures_are_one_list():
    assert chat_state.PLACES == ui_messages.PLACES


def test_features_files_have_one_mark(tmp_path):
    import torch
    from wegen.wegen_model.features import save_features

    save_features(Features(torch.zeros(1, 4, 8), (2, 2), "space", "tower"), tmp_path / "a.safetensors")
    assert feature_files.is_features(tmp_path / "a.safetensors")
