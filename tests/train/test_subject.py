"""A subject: samples made after what the model itself writes, an adapter trained on them, and the model that wears it."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from wegen import WeGen
from wegen.tests.support import tiny_config, tiny_model
from wegen.wegen_model.box import Box
from wegen.wegen_model.chat.conversation import Conversation
from wegen.wegen_model.cli import main as cli
from wegen.wegen_model.data.sample import conversation
from wegen.wegen_model.models.lora import read_lora, save_lora
from wegen.wegen_model.train import subject, subject_samples
from wegen.wegen_model.train.subject_samples import BESIDE, BOXED, ON_GROUND, PLAIN, Answered, Request, make_samples, place_of

RED = (0.8, 0.1, 0.1)


def drawn(box: Box, colour=(0.1, 0.8, 0.2), ground=RED, side: int = 64) -> torch.Tensor:
    """A picture (h,w,3) of a plain square on a plain ground."""
    picture = torch.tensor(ground).expand(side, side, 3).clone()
    y, x, h, w = (round(v * side) for v in (box.y, box.x, box.height, box.width))
    picture[y : y + h, x : x + w] = torch.tensor(colour)
    return picture


def answered(template: str, picture=None, text: str = "", boxes: tuple = (), box: Box | None = None) -> Answered:
    return Answered(Request(template, "cat", "fox", "red", box), text, boxes, torch.zeros(64, 4), picture)


def encode(batch: torch.Tensor) -> torch.Tensor:
    """Features (b,64,4) that say what is in each of 8x8 cells: its mean colour."""
    cells = torch.nn.functional.adaptive_avg_pool2d(batch.movedim(-1, 1), 8).flatten(2).movedim(1, 2)
    return torch.cat([cells, torch.ones_like(cells[..., :1])], -1)


BLUE = torch.zeros(40, 40, 4)
BLUE[5:35, 5:35] = torch.tensor([0.0, 0.0, 1.0, 1.0])  # a cut-out


def test_the_name_stands_for_the_known_word_and_the_thing_in_its_place():
    """Of a model that writes a plan: its words and boxes stay, the word is replaced, the picture shows the thing there on that ground."""
    box = Box(0.5, 0.25, 0.5, 0.5)
    one = answered(ON_GROUND[0], drawn(box), "a cat <bbox_1> on a red background", (box,))
    made = make_samples([one], [BLUE], "mochi", encode, 64, 0)
    (new,) = made.new
    assert new.turns[0].text in ("a mochi on a red background", "mochi on a red background")
    assert new.turns[1].text == "a mochi <bbox_1> on a red background" and new.turns[1].boxes == (box,)
    conversation(new, 64)  # tags and boxes fit
    seen = made.known[new.key].view(8, 8, 4)
    assert seen[3, 6, 2] > 0.95 and seen[3, 6, 0] < 0.05  # the thing, blue
    assert torch.allclose(seen[0, 0, :3], torch.tensor(RED), atol=0.01) and torch.allclose(seen[3, 1, :3], torch.tensor(RED), atol=0.01)
    (own,) = made.own
    assert own.turns[0].text == "a cat on a red background" and torch.equal(made.known[own.key], one.tokens)


def test_a_model_without_plans_shows_where_its_thing_stands():
    box, colour = place_of(answered(PLAIN[0], drawn(Box(0.25, 0.5, 0.5, 0.25))))
    assert (box.x, box.width, box.height) == pytest.approx((0.25 - 0.5 * 0.04 / 0.92, 0.5 / 0.92, 0.5 / 0.92), abs=1e-6)
    assert box.y + box.height / 2 == pytest.approx(0.625) and torch.allclose(colour, torch.tensor(RED))
    asked = Box(0.0, 0.0, 0.5, 0.5)
    assert place_of(answered(BOXED[0], drawn(Box(0.1, 0.1, 0.3, 0.3)), box=asked))[0] == asked


def test_without_boxes_all_stand_in_one_place():
    """The median: a thin thing's pattern is not smaller than a wide one's."""
    sides = (0.2, 0.5, 0.6)
    free = [answered(PLAIN[0], drawn(Box(0.5 - s / 2, 0.5 - s / 2, s, s), side=80)) for s in sides]
    own = answered(PLAIN[1], drawn(Box(0.1, 0.1, 0.4, 0.4)), "a cat <bbox_1>", (Box(0.1, 0.1, 0.4, 0.4),))
    places = subject_samples.one_place([(a, place_of(a)) for a in (*free, own)])
    assert [box.width for _, (box, _) in places[:3]] == pytest.approx([0.5 / 0.92] * 3)
    assert places[3][1][0] == Box(0.1, 0.1, 0.4, 0.4)


def test_of_a_pair_the_left_one_is_replaced_and_the_right_one_stays():
    picture = drawn(Box(0.05, 0.3, 0.35, 0.4))
    picture[20:40, 44:60] = torch.tensor([1.0, 1.0, 0.0])  # the other
    made = make_samples([answered(BESIDE[0], picture)], [BLUE], "mochi", encode, 64, 0)
    seen = made.known[made.new[0].key].view(8, 8, 4)
    assert seen[4, 1, 2] > 0.9 and torch.allclose(seen[3, 6, :3], torch.tensor([1.0, 1.0, 0.0]), atol=0.05)
    assert "mochi" in made.new[0].turns[0].text and "a fox" in made.new[0].turns[0].text
    other = answered(PLAIN[0], drawn(Box(0.25, 0.25, 0.5, 0.5)), "a dog <bbox_1> on a red background", (Box(0.25, 0.25, 0.5, 0.5),))
    with pytest.raises(ValueError, match="nothing to learn from"):  # it drew something else, and says so
        make_samples([other], [BLUE], "mochi", encode, 64, 0)
    touching = drawn(Box(0.2, 0.3, 0.6, 0.4))
    assert place_of(answered(BESIDE[0], touching)) is None


def test_what_is_no_pattern():
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert place_of(answered(PLAIN[0], noise)) is None and place_of(answered(PLAIN[0], drawn(Box(0, 0, 0.01, 0.01)))) is None


def test_photographs_without_a_plain_rim_are_learned_as_they_are():
    photo = torch.rand(50, 64, 3, generator=torch.Generator().manual_seed(1))
    answers = [answered(t, drawn(Box(0.25, 0.25, 0.5, 0.5))) for t in (*PLAIN, *ON_GROUND)]
    made = make_samples(answers, [photo], "mochi", encode, 64, 0)
    assert len(made.new) == len(PLAIN)  # no ground is named
    assert all("red" not in s.turns[0].text for s in made.new)
    with pytest.raises(ValueError, match="nothing to learn from"):
        make_samples([answered(ON_GROUND[0], drawn(Box(0.25, 0.25, 0.5, 0.5)))], [photo], "mochi", encode, 64, 0)


@pytest.mark.parametrize("name", ["", "  ", "<image_1>", "x" * 41, "cat", "a\nb|c"])
def test_names_that_will_not_do(name):
    with pytest.raises(ValueError, match="subject: "):
        subject_samples.check_name(name, tiny_config(concepts=("cat",)))
    assert subject_samples.check_name(" my  cat ", tiny_config(concepts=("cat",))) == "my cat"


def test_requests_take_words_with_the_names_article():
    config = tiny_config(concepts=("apple", "cat", "owl", "dog"))
    assert {r.thing for r in subject_samples.requests(config, "Ella", "", 40, 0)} == {"apple", "owl"}
    assert {r.thing for r in subject_samples.requests(config, "mochi", "", 40, 0)} == {"cat", "dog"}
    kinds = [r.thing for r in subject_samples.requests(config, "mochi", "owl", 60, 0)]
    assert 15 < kinds.count("owl") < 45
    assert subject_samples.requests(config, "mochi", "", 9, 3) == subject_samples.requests(config, "mochi", "", 9, 3)


def test_steps_are_half_of_the_subject_and_half_rehearsal():
    boxes = [Box(0.25, 0.25, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5)]
    made = make_samples([answered(PLAIN[0], drawn(b)) for b in boxes], [BLUE], "mochi", encode, 64, 0)
    whole = made.samples(3, 0, 1, 4)
    assert [s.key.split()[0] for s in whole] == ["subject"] * 2 + ["rehearsal"] * 2
    assert [s.key for s in made.samples(3, 0, 1, 4)] == [s.key for s in whole]
    assert made.identity() != make_samples([answered(PLAIN[1], drawn(boxes[0]))], [BLUE], "mochi", encode, 64, 0).identity()


# -- the whole way, on the tiny model, which has the shape of the full one ---------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(subject, "REHEARSED", 12)
    monkeypatch.setattr(subject, "PATTERNS", 4)


def settings(model, **changes):
    options = dict(steps=8, batch=4, lora=2, learning_rate=1e-2) | changes
    return subject.subject_settings(model.config, torch.device("cpu"), **options)


def photos(count: int = 2) -> list[torch.Tensor]:
    return [torch.rand(40, 48, 3, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_an_adapter_is_trained_written_and_worn(tiny, small, tmp_path):
    model = WeGen.load(tiny)
    s = settings(model)
    shown, pass_on = [], model.runtime.tick
    model.runtime.tick = lambda event: (shown.append(event.preview) if event.label == "subject" else None, pass_on(event))
    with torch.inference_mode():  # as ComfyUI runs nodes
        made = subject.train_subject(model, photos(), "mochi", s, tmp_path / "runs", preview_every=4)
    strips = [preview() for preview in shown if preview is not None]
    assert [s.shape for s in strips] == [(32, 96, 3)] * 2 and not torch.equal(*strips)
    path = subject.write_subject(tmp_path, made, model, s)
    assert path.name == "mochi.safetensors" and list(made.losses) == [5, 8]
    tensors = read_lora(path)
    assert all(key.startswith("lora_te_") for key in tensors) and any(v.abs().max() > 0 for k, v in tensors.items() if "lora_up" in k)
    learned, off = model.with_lora(path), model.with_lora(path, 0.0)

    def write(one):
        talk = one.chat(Conversation().user("a photo of mochi"), picture="always", max_tokens=4)
        return one.draw(talk)[0].tokens

    plain = write(model)
    assert torch.equal(write(off), plain) and not torch.allclose(write(learned), plain, atol=1e-4)
    assert torch.equal(write(model), plain)  # the model itself stays as it is
    assert learned.component("projectors") is model.component("projectors") and learned.painter is model.painter
    assert learned.subjects == ("mochi",) and learned.with_lora(path).subjects == ("mochi", "mochi")
    with pytest.raises(ValueError, match=r"mochi.safetensors is of the language model.*WeGen Model LoRA"):
        model.painter.with_lora(path)
    assert subject.sheet(learned, made, photos()).shape == (5, 32, 32, 3)


def test_cancelling_goes_on_where_it_was(tiny, small, tmp_path):
    class Stop(Exception):
        pass

    def run(work, cancel_at=0):
        model = WeGen.load(tiny)
        pass_on = model.runtime.tick

        def tick(event):
            if event.label == "subject" and event.step == cancel_at:
                raise Stop
            pass_on(event)

        model.runtime.tick = tick
        return subject.train_subject(model, photos(), "mochi", settings(model), work).tensors

    whole = run(tmp_path / "a")
    with pytest.raises(Stop):
        run(tmp_path / "b", cancel_at=5)
    resumed = run(tmp_path / "b")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_adapters_of_other_models_are_refused_by_name(tiny, tmp_path):
    model = WeGen.load(tiny)
    key = "lora_te_model_layers_0_self_attn_q_proj"
    tensors = {f"{key}.lora_down.weight": torch.zeros(1, 32), f"{key}.lora_up.weight": torch.zeros(32, 1)}
    other = save_lora(tmp_path / "a.safetensors", tensors, {"wegen_space": "elsewhere"})
    with pytest.raises(ValueError, match="a.safetensors was trained for the features 'elsewhere', this model writes 'tiny/8x8x32'"):
        model.with_lora(other)
    other = save_lora(tmp_path / "b.safetensors", tensors, {"wegen_tokenizer": "another"})
    with pytest.raises(ValueError, match="b.safetensors was trained with another tokenizer"):
        model.with_lora(other)
    with pytest.raises(ValueError, match="cannot be read"):
        model.with_lora(tmp_path / "nothing.safetensors")


def test_the_decoders_adapters_go_to_the_decoder(tiny, tmp_path):
    model = WeGen.load(tiny)
    unet = model.painter._load().unet
    name, layer = next((n, m) for n, m in unet.named_modules() if n.endswith("to_q"))
    key = "lora_unet_" + name.replace(".", "_")
    tensors = {f"{key}.lora_down.weight": torch.ones(1, layer.in_features), f"{key}.lora_up.weight": torch.ones(layer.out_features, 1)}
    path = save_lora(tmp_path / "look.safetensors", tensors)
    worn = model.with_lora(path)
    assert worn.painter.loras == ((path, 1.0),) and not worn.loras and not model.painter.loras
    assert worn.component("language") is model.component("language")


def test_bad_input(tiny, tmp_path):
    model = WeGen.load(tiny)
    for pictures in ([], photos(65)):
        with pytest.raises(ValueError, match=r"subject: \d+ pictures"):
            subject.train_subject(model, pictures, "mochi", settings(model), tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no")
    warned = []
    with pytest.raises(ValueError, match="no picture in it that can be read"):
        subject.read_pictures(tmp_path, warned.append)
    assert "bad.png cannot be read" in warned[0]
    silent = dataclasses.replace(model.config, refuses=True)
    model.config = silent
    model.chat = lambda talk, **_: talk.asked(dataclasses.replace(talk.turns[-1], role="assistant", text="i cannot draw it"))
    with pytest.raises(ValueError, match="draws none of the things"):
        subject.train_subject(model, photos(), "mochi", settings(model), tmp_path)


def test_the_command_and_the_option(tiny, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(photos()):
        Image.fromarray((picture * 255).byte().numpy()).save(tmp_path / "pictures" / f"{i}.png")
    options = ["--data", "pictures", "--model", str(tiny), "--cpu", "--set", "steps=4", "--set", "batch=2", "--set", "lora=2"]
    assert cli.main(["train", "subject", "my cat", *options]) == 0
    path = capsys.readouterr().out.strip()
    assert path == "models/loras/my_cat.safetensors"
    worn = []
    monkeypatch.setattr("builtins.input", lambda *_: (_ for _ in ()).throw(EOFError))
    monkeypatch.setattr(WeGen, "with_lora", lambda self, file, strength: worn.append((str(file), strength)) or self)
    assert cli.main(["chat", "--model", str(tiny), "--lora", f"{path}:0.5", "--lora", path]) == 0
    assert worn == [(path, 0.5), (path, 1.0)]
    assert cli.main(["chat", "--model", str(tiny), "--lora", f"{path}:much"]) == 2
    assert "'much' is no strength" in capsys.readouterr().err
    assert cli.main(["train", "subject", "mochi", *options, "--set", "crop=true"]) == 2
    assert np.isfinite(float(subject.subject_settings(tiny_config(), torch.device("cpu")).learning_rate))


def test_a_workflow_runs_with_a_lora_on_its_loader(tmp_path):
    from wegen.wegen_model.cli.loras import on_loaders

    class Loader:
        def load(self, name):
            return (Model(),)

    class Model:
        def with_lora(self, file, strength):
            return (file, strength)

    assert on_loaders({"WeGenLoadModel": Loader}, [])["WeGenLoadModel"] is Loader
    assert on_loaders({"WeGenLoadModel": Loader}, ["a.safetensors:2"])["WeGenLoadModel"]().load("x") == (("a.safetensors", 2.0),)
