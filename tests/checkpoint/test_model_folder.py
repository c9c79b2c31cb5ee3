"""Model folders: what is saved is what is loaded; damage, wrong shapes and missing parts are errors that name them."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from wegen.tests.support import picture, tiny_config, tiny_model
from wegen.wegen_model.chat.conversation import Conversation
from wegen.wegen_model.checkpoint import model_folder, model_paths
from wegen.wegen_model.checkpoint.convert import skeleton
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.config import PRESETS, ModelConfig
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.runtime import Runtime


@pytest.fixture
def own(tiny, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny, tmp_path / "own")


def open_model(folder) -> WeGen:
    return WeGen.load(folder, runtime=Runtime("cpu", torch.float32))


# --- round trip ---------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(tiny, tmp_path):
    config = model_folder.read_config(tiny)
    states = {part: skeleton(part, config) for part in ("vision", "language", "projectors", "unet", "vae")}
    states = {part: model_folder.load_into(module, tiny, part).state_dict() for part, module in states.items()}
    again = model_folder.save(tmp_path / "again", config, states, tokenizer=tiny)
    assert model_folder.read_config(again) == config
    assert model_folder.parts(again) == model_folder.parts(tiny) == list(states)
    for part, state in states.items():
        loaded = model_folder.load_into(skeleton(part, config), again, part).state_dict()
        assert list(loaded) == list(state) and all(torch.equal(loaded[k], state[k]) for k in state)
    a, b = (open_model(f).encode(picture()) for f in (tiny, again))
    assert torch.equal(a.tokens, b.tokens) and (a.space, a.tower, a.grid) == (b.space, b.tower, b.grid)
    assert open_model(again).tokenizer.hash == open_model(tiny).tokenizer.hash


def test_saving_in_half_precision(tiny, tmp_path):
    config = model_folder.read_config(tiny)
    state = model_folder.load_into(skeleton("vision", config), tiny, "vision").state_dict()
    half = model_folder.save(tmp_path / "half", config, {"vision": state}, dtype=torch.bfloat16)
    assert inspect(half).parts[0].precision == "BF16"
    model = WeGen.load(half, runtime=Runtime("cpu", torch.float32)).component("vision").module
    assert torch.equal(model.cls_token, state["cls_token"].bfloat16().float())


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def beside(folder):
    return sorted(p.name for p in folder.parent.iterdir() if p != folder)


def test_an_interrupted_save_leaves_what_was_there(own):
    before = contents(own)
    states = {part: {"weight": torch.zeros(1)} for part in model_folder.parts(own)}
    with pytest.raises(AttributeError):
        model_folder.save(own, model_folder.read_config(own), states | {"vision": {"cls_token": "not a tensor"}}, tokenizer=own)
    assert contents(own) == before and beside(own) == []


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
def test_an_interruption_between_the_renames_puts_the_old_folder_back(own, monkeypatch, error):
    def fail(old, new):
        if str(old).endswith("new"):
            raise error
        os.rename(old, new)

    before = contents(own)
    monkeypatch.setattr(model_paths.os, "replace", fail)
    with pytest.raises(type(error)), model_folder.replacing(own) as new:
        (new / "config.json").write_text("{}")
    assert contents(own) == before and beside(own) == []


def test_a_crash_between_the_renames_leaves_the_old_folder_where_it_is_named(own, monkeypatch):
    """As good as killed: after the first rename nothing more can be renamed."""
    renamed = []

    def fail(old, new):
        if renamed:
            raise OSError("killed")
        renamed.append(new)
        os.rename(old, new)

    before = contents(own)
    monkeypatch.setattr(model_paths.os, "replace", fail)
    with pytest.raises(OSError, match="killed"), model_folder.replacing(own):
        pass
    monkeypatch.undo()
    [old] = renamed
    assert not own.exists() and contents(old) == before
    for name, roots in ((str(own), ()), (own.name, (own.parent,))):
        with pytest.raises(CheckpointError, match="interrupted. What was there before is .*/old; rename it to .*own"):
            model_folder.resolve(name, roots)
    with model_folder.replacing(own):
        pass
    assert contents(old) == before  # a later call does not take away what it did not make


def test_a_folder_that_appears_meanwhile_and_the_old_one_both_stay(own, monkeypatch):
    def rename(old, new):
        os.rename(old, new)
        if str(new).endswith("old"):
            own.mkdir()
            (own / "letter.txt").write_text("dear")

    before = contents(own)
    monkeypatch.setattr(model_paths.os, "replace", rename)
    with pytest.raises(OSError), model_folder.replacing(own):
        pass
    [left] = beside(own)
    assert contents(own) == {model_folder.Path("letter.txt"): b"dear"} and contents(own.with_name(left) / "old") == before


def test_neighbours_of_similar_names_are_left_alone(own):
    for name in ("own.old", "own.part", ".own.mine"):
        own.with_name(name).mkdir()
        (own.with_name(name) / "letter.txt").write_text("dear")
    states = {part: {"weight": torch.zeros(1)} for part in model_folder.parts(own)}
    model_folder.save(own, model_folder.read_config(own), states, tokenizer=own)
    assert model_folder.read_tensors(own / "vision.safetensors").keys() == {"weight"} and (own / "tokenizer.json").is_file()
    assert beside(own) == [".own.mine", "own.old", "own.part"]
    assert all((own.with_name(name) / "letter.txt").is_file() for name in beside(own))


def test_a_folder_that_would_lose_something_is_not_replaced(own, tmp_path):
    config, vision = model_folder.read_config(own), {"vision": {"weight": torch.zeros(1)}}
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="exists and is not a WeGen model folder"):
        model_folder.save(tmp_path, config, vision)
    with pytest.raises(CheckpointError, match="language, projectors, unet, vae, tokenizer would be lost"):
        model_folder.save(own, config, vision)
    with pytest.raises(CheckpointError, match="config.json is a file"):
        model_folder.save(own / "config.json", config, vision)
    (own / "another-model").mkdir()
    with pytest.raises(CheckpointError, match="no part of a model and would be lost: another-model"):
        model_folder.save(own, config, dict.fromkeys(model_folder.parts(own), {}), tokenizer=own)
    assert contents(tmp_path) == before and beside(own) == []


def test_the_recipe_checks_its_target_before_it_trains(own, tmp_path, monkeypatch):
    from wegen.wegen_model.mini import recipe

    ran = []
    monkeypatch.setattr(recipe, "run_stage", lambda stage, *args, **options: ran.append(stage))
    monkeypatch.setattr(recipe, "load_art", lambda *args, **options: None)
    with pytest.raises(CheckpointError, match="is not a WeGen model folder"):
        recipe.train(tmp_path / "work", "test", target=own.parent)
    with pytest.raises(CheckpointError, match="the work folder .*work is in it"):
        recipe.train(tmp_path / "runs/work", "test", target=tmp_path / "runs")
    assert ran == []
    recipe.train(tmp_path / "work", "test", ("tower",), target=own.parent)  # writes nothing there
    assert ran == ["tower"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_json(name):
    config = PRESETS[name]
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, latent_rgb=((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))))
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert dataclasses.replace(again, unet={}, vae={}) == dataclasses.replace(config, unet={}, vae={})


def test_how_much_a_model_remembers(own):
    """All of a conversation at full size and where a folder is older than the setting; one exchange in the miniature."""
    values = json.loads((own / "config.json").read_text())
    assert values.pop("memory") == 0
    (own / "config.json").write_text(json.dumps(values))
    assert model_folder.read_config(own).memory == PRESETS["wegen-7b"].memory == 0
    assert model_folder.read_config(model_folder.resolve("wegen-mini")).memory == PRESETS["wegen-mini"].memory == 1


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_truncated_file(own):
    path = own / "vision.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete safetensors \(\d[\d,]* bytes"):
        open_model(own).encode(picture())
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete safetensors"):
        inspect(own)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete"):
        open_model(own).encode(picture())


def test_a_wrong_shape_a_missing_and_a_foreign_tensor(own):
    path = own / "vision.safetensors"
    state = model_folder.read_tensors(path)
    state["blocks.1.mlp.fc1.bias"] = torch.zeros(63)
    state["blocks.2.mlp.fc1.bias"] = state.pop("cls_token")
    path.unlink()
    from safetensors.torch import save_file

    save_file(state, path)
    with pytest.raises(CheckpointError) as error:
        open_model(own).encode(picture())
    assert all(
        words in str(error.value)
        for words in (
            "own/vision.safetensors does not fit",
            "blocks.1.mlp.fc1.bias is (63,), expected (64,)",
            "cls_token is missing",
            "blocks.2.mlp.fc1.bias is not part of this model",
        )
    )


def test_a_lost_shard(own):
    (own / "vision.safetensors").rename(own / "vision-00001-of-00002.safetensors")
    index = {"weight_map": {"cls_token": "vision-00001-of-00002.safetensors", "pos_embed": "vision-00002-of-00002.safetensors"}}
    (own / "vision.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lists vision-00002-of-00002.safetensors, which is not there"):
        open_model(own).encode(picture())


@pytest.mark.parametrize(
    "content, error",
    [
        ("{", "not a valid configuration"),
        ("[]", "not a valid configuration"),
        ('{"format_version": 99}', "version 99 is newer"),
        ('{"vision": {"wings": 2}}', "unknown keys in VisionConfig: wings"),
        ('{"memory": -1}', "memory is -1, not a number of exchanges"),
        ('{"memory": 1.5}', "memory is 1.5, not a whole number"),
    ],
)
def test_a_bad_config(own, content, error):
    (own / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=error):
        WeGen.load(own)


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_bad_diffusers_configuration_is_named(own, file, content):
    (own / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=f"own/{file}: not a valid configuration"):
        model_folder.read_config(own)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_a_bad_index_is_named(own, content):
    (own / "vision.safetensors").unlink()
    (own / "vision.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="own/vision.safetensors.index.json: not a"):
        model_folder.files(own, "vision")


# --- missing parts ------------------------------------------------------------------------------------------------


def test_an_absent_part_is_an_error_only_where_it_is_needed(tmp_path):
    folder = tiny_model(tmp_path / "seeing", parts=("vision",))
    model = open_model(folder)
    features = model.encode(picture())
    with pytest.raises(CheckpointError, match=r"seeing: the model folder has no (language|projectors) .*It has: vision"):
        model.chat(Conversation().user("a fox"))
    with pytest.raises(CheckpointError, match=r"seeing: no unet/ folder.*The folder has: vision"):
        model.decode(features)
    painting = open_model(tiny_model(tmp_path / "painting", parts=("unet", "vae")))
    assert painting.decode(features, steps=1).shape == (1, 32, 32, 3)
    with pytest.raises(CheckpointError, match=r"painting: the model folder has no vision \(vision.safetensors"):
        painting.encode(picture())
    talking = open_model(tiny_model(tmp_path / "talking", parts=("language", "projectors")))
    assert talking.chat(Conversation().user("a fox"), max_tokens=2).last.role == "assistant"


def test_a_decoder_without_its_weights(own):
    (own / "vae/diffusion_pytorch_model.safetensors").unlink()
    decoder = WeGenDecoder.load(own, Runtime("cpu", torch.float32))
    features = open_model(own).encode(picture())
    with pytest.raises(CheckpointError, match=r"own: the model folder has no vae \(vae/diffusion_pytorch_model.safetensors"):
        decoder.decode(features)


def test_names_that_are_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder 'fox'.*Use wegen-mini"):
        WeGen.load("fox", roots=(tmp_path,))
    with pytest.raises(CheckpointError, match="'wegen-7b' is a preset of sizes; its weights are not bundled"):
        WeGen.load("wegen-7b", roots=(tmp_path,))


def test_a_name_below_the_roots_wins_over_one_in_the_current_folder(tmp_path, monkeypatch):
    for place in ("here", "models/fox", "here/fox", "here/owl"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    roots = (tmp_path / "none", tmp_path / "models")
    assert model_folder.resolve("fox", roots) == tmp_path / "models/fox"
    assert model_folder.resolve("owl", roots).resolve() == tmp_path / "here/owl"
    assert model_folder.resolve(tmp_path / "here/fox", roots) == tmp_path / "here/fox"


# --- inspect ------------------------------------------------------------------------------------------------------


def test_inspecting_a_model_folder(tiny):
    report = inspect(tiny)
    config = tiny_config()
    assert report.kind == "WeGen model folder" and not report.missing
    for part in report.parts:
        assert part.parameters == sum(p.numel() for p in skeleton(part.name, config).parameters())
    assert (report.space, report.tower, report.tokenizer) == ("tiny/8x8x32", "tiny", "tokenizer.json")
    assert "vision" in report.text() and f"{report.parts[0].parameters:,} parameters" in report.text()


def test_inspecting_a_decoder_folder(tmp_path):
    folder = tiny_model(tmp_path / "decoder", parts=("unet", "vae"))
    report = inspect(folder)
    assert report.kind == "WeGen decoder folder" and not report.missing
    assert [part.name for part in report.parts] == ["unet", "vae"] and report.scheduler == "EulerDiscreteScheduler"
    (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    assert inspect(folder).missing == ["vae"] and "missing    vae" in inspect(folder).text()


def test_inspecting_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no WeGen weights found"):
        inspect(tmp_path)
    (tmp_path / "notes.bin").write_text("a shopping list")
    with pytest.raises(CheckpointError, match="neither safetensors nor a PyTorch zip file"):
        inspect(tmp_path / "notes.bin")
