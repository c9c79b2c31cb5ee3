"""Small graphs, wired by hand: text to picture, references in boxes, a question, several turns, kept cells."""

import pytest
import torch
from wegen.nodes.feature_decode import cells
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture, tiny_model


def paint(model, **options):
    (chat, reply, *_), shown = call("WeGenChat", model=model, message="a cat", picture="always", max_tokens=6, **options)
    (features, drawn), _ = call("WeGenDraw", model=model, chat=chat)
    (image,), _ = call("WeGenDecode", features=features, decoder=model, seed=7)
    return reply, shown, drawn, features, image


def test_text_to_picture(model):
    reply, shown, drawn, features, image = paint(model)
    assert image.shape == (1, 32, 32, 3) and image.dtype == torch.float32
    assert 0 <= image.min() and image.max() <= 1 and image.std() > 0.01
    assert features.tokens.shape == (1, 64, 32)
    assert reply and shown[0] == reply
    assert [t.role for t in drawn.turns] == ["user", "assistant"] and not drawn.open_image
    assert torch.equal(drawn.turns[-1].pictures[0].tokens, features.tokens)


def test_same_seed_same_everything(model):
    one, two, other = (paint(model, temperature=1.0, seed=s) for s in (3, 3, 4))
    assert one[0] == two[0] and torch.equal(one[4], two[4])
    assert one[0] != other[0] and not torch.equal(one[3].tokens, other[3].tokens)


def test_encode_batch_equals_each_alone(model):
    batch = picture(batch=3)
    together = call("WeGenEncode", model=model, image=batch)[0][0]
    for i in range(3):
        alone = call("WeGenEncode", model=model, image=batch[i : i + 1])[0][0]
        assert torch.allclose(together.tokens[i], alone.tokens[0], atol=1e-4)


@pytest.mark.parametrize("image", [picture(channels=1), picture(channels=4), picture(1, 1), picture(2000, 2), picture()[0]])
def test_encode_takes_odd_pictures(model, image):
    tokens = call("WeGenEncode", model=model, image=image)[0][0].tokens
    assert tokens.shape == (1, 64, 32) and torch.isfinite(tokens).all()


def test_decoder_socket_takes_model_or_decoder(model, folder):
    decoder = call("WeGenLoadDecoder", decoder=str(folder))[0][0]
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    assert torch.equal(*(call("WeGenDecode", features=features, decoder=d, seed=1)[0][0] for d in (model, decoder)))


def test_an_error_of_the_model_s_own_decoder_is_not_swallowed(model, monkeypatch):
    def broken(self):
        raise AttributeError("inside the property")

    features = call("WeGenEncode", model=model, image=picture())[0][0]
    monkeypatch.setattr(type(model), "painter", property(broken))
    with pytest.raises(AttributeError, match="inside the property"):
        call("WeGenDecode", features=features, decoder=model)


def test_a_decoder_socket_refuses_another_pack_s_model(model):
    """An untyped reroute lets anything through."""
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    for node in ("WeGenDecode", "WeGenDecoderToModel"):
        with pytest.raises(ValueError, match="decoder: this is no WeGen decoder but a Identity of another node. Connect Load"):
            call(node, **({"features": features} if node == "WeGenDecode" else {}), decoder=torch.nn.Identity())


def test_conditioning_is_features_and_zeros(model):
    features = call("WeGenEncode", model=model, image=picture(batch=2))[0][0]
    (positive, negative), _ = call("WeGenFeaturesToConditioning", features=features)
    assert torch.equal(positive[0][0], features.tokens) and torch.equal(positive[0][1]["pooled_output"], features.pooled)
    assert positive[0][1]["wegen_space"] == features.space
    assert negative[0][0].shape == (2, 64, 32) and not negative[0][0].any() and not negative[0][1]["pooled_output"].any()
    with pytest.raises(ValueError, match="features: the batch is empty"):
        call("WeGenFeaturesToConditioning", features=features[:0])


def test_ksampler_needs_comfyui(model):
    with pytest.raises(ValueError, match="works only inside ComfyUI.*Use SDXL Feature Decoder"):
        call("WeGenDecoderToModel", decoder=model)


def test_decode_switches(model):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    own = call("WeGenDecode", features=features, decoder=model, steps=9, guidance_scale=1.0, width=8, height=16)[0][0]
    same = call("WeGenDecode", features=features, decoder=model, use_defaults=False, steps=3, guidance_scale=2.0)[0][0]
    assert torch.equal(own, same)  # widgets behind a switch do not count
    sized = call("WeGenDecode", features=features, decoder=model, use_default_size=False, width=16, height=48, scheduler="ddim")[0][0]
    assert sized.shape == (1, 48, 16, 3)


def test_question_needs_no_drawing(model):
    (chat, reply, boxes, *_), shown = call(
        "WeGenChat", model=model, message="what is in <image_1>?", picture="never", max_tokens=6, image_1=picture()
    )
    assert reply and boxes == [[]] and not chat.open_image
    assert chat.turns[0].references[0].features is not None


def test_second_turn_sees_the_first_picture(model):
    *_, drawn, features, _ = paint(model)
    second = call("WeGenChat", model=model, message="redder", picture="always", max_tokens=4, chat=drawn)[0][0]
    assert len(second.turns) == 4 and second.open_image
    with_picture = call("WeGenDraw", model=model, chat=second)[0][0]
    alone = call("WeGenChat", model=model, message="redder", picture="always", max_tokens=4)[0][0]
    assert not torch.equal(with_picture.tokens, call("WeGenDraw", model=model, chat=alone)[0][0].tokens)
    assert len(drawn.turns) == 2  # values: the earlier conversation is untouched


def test_references_come_first_then_images(model):
    (references, prompt, *_), _ = call("WeGenBboxCompose", prompt="<image_1> at <bbox_1>", box_text="0 0 0.5 0.5", image_1=picture(seed=1))
    (chat, *_), _ = call(
        "WeGenChat",
        model=model,
        message=prompt + " beside <image_2>",
        picture="always",
        max_tokens=2,
        references=references,
        image_1=picture(seed=2),
    )
    turn = chat.turns[0]
    assert [r.box is not None for r in turn.references] == [True, False]
    assert torch.equal(turn.references[1].picture, picture(seed=2))


def test_features_and_picture_make_the_same_reference(model):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    one, two = (
        call("WeGenChat", model=model, message="like <image_1>", picture="always", max_tokens=4, image_1=v)[0][0]
        for v in (picture(), features)
    )
    assert one.turns[1] == two.turns[1]


def test_batch_in_one_socket_warns_and_takes_the_first(model):
    (chat, *_), shown = call("WeGenChat", model=model, message="<image_1>", picture="never", max_tokens=2, image_1=picture(batch=2))
    assert torch.equal(chat.turns[0].references[0].picture, picture(batch=2)[:1])
    assert "image_1 holds 2 pictures" in shown[1]


def test_gap_between_sockets_is_told(model):
    (chat, *_), shown = call(
        "WeGenChat", model=model, message="<image_2>", picture="never", max_tokens=2, image_1=picture(), image_3=picture()
    )
    assert len(chat.turns[0].references) == 2
    assert "image_3 is reference 2 here: write <image_2>" in shown[1]


def test_many_references_warn(model):
    (references, *_), _ = call("WeGenBboxCompose", image_1=picture())
    images = {f"image_{k}": picture() for k in range(1, 6)}
    _, shown = call("WeGenChat", model=model, message="all", picture="never", max_tokens=2, references=references, **images)
    assert any("6 references" in line and "past three" in line for line in shown)


def test_notes_do_not_leak_into_the_next_run(model):
    call("WeGenChat", model=model, message="<image_1>", picture="never", max_tokens=2, image_1=picture(batch=2))
    _, shown = call("WeGenChat", model=model, message="hello", picture="never", max_tokens=2)
    assert len(shown) == 1


def test_kept_cells_come_back_bit_for_bit(model, asked):
    earlier = call("WeGenEncode", model=model, image=picture(seed=5))[0][0]
    free = call("WeGenDraw", model=model, chat=asked)[0][0].tokens[0]
    mask = torch.zeros(1, 80, 160)
    mask[:, 40:, 80:] = 1  # the lower right quarter
    kept = call("WeGenDraw", model=model, chat=asked, keep_features=earlier, keep_mask=mask)[0][0].tokens[0]
    grid = cells(mask, (8, 8)).bool().flatten()
    assert grid.sum() == 16
    assert torch.equal(kept[grid], earlier.tokens[0][grid])
    assert torch.equal(kept[:36], free[:36])  # nothing before the first kept cell (row 4, column 4) changes
    assert not torch.equal(kept[40:44], free[40:44])


def test_keeping_nothing_and_keeping_of_a_batch_are_told(model, asked):
    earlier = call("WeGenEncode", model=model, image=picture(batch=2))[0][0]
    (features, _), shown = call("WeGenDraw", model=model, chat=asked, keep_features=earlier, keep_mask=torch.zeros(1, 8, 8))
    assert torch.equal(features.tokens, call("WeGenDraw", model=model, chat=asked)[0][0].tokens)
    assert [line.split(":")[1] for line in shown] == [" keep_features holds 2 pictures", " keep_mask keeps no cell"]
    whole = call("WeGenDraw", model=model, chat=asked, keep_features=earlier, keep_mask=torch.ones(1, 8, 8))[0][0]
    assert torch.equal(whole.tokens, earlier.tokens[:1])


def test_mask_cells_count_half_and_join():
    masks = torch.zeros(2, 16, 16)
    masks[0, 0, 0:2] = 1  # half of cell (0,0): not kept
    masks[0, 2:4, 0:2] = 1  # all of (1,0)
    masks[1, 15, 14:16], masks[1, 14, 14] = 1, 1  # three quarters of (7,7), in another mask
    assert cells(masks, (8, 8)).nonzero().tolist() == [[1, 0], [7, 7]]
    assert torch.equal(cells(torch.eye(8), (8, 8)), torch.eye(8))


def test_parallel_differs_from_autoregressive(model, asked):
    one, many = (call("WeGenDraw", model=model, chat=asked, mode=m)[0][0].tokens for m in ("autoregressive", "parallel"))
    assert torch.allclose(one[:, 0], many[:, 0], atol=1e-4) and not torch.allclose(one[:, 5], many[:, 5], atol=1e-3)


def test_reply_boxes_are_in_pixels_of_the_first_picture():
    from wegen.nodes.chat import reply_boxes
    from wegen.wegen_model.chat.conversation import Box, Reference, Turn

    reply = Turn("assistant", "there <bbox_1>", (Reference(box=Box(0.25, 0.5, 0.5, 0.25)),))
    inside = {"x": 10, "y": 15, "width": 20, "height": 8, "label": "bbox_1"}
    assert reply_boxes(reply, (Reference(picture=picture(40, 30)),)) == [[inside]]
    assert reply_boxes(reply, ())[0][0]["x"] == 256


def test_tower_without_language_still_encodes_and_paints(tmp_path):
    partial = call("WeGenLoadModel", model=str(tiny_model(tmp_path / "eye", parts=("vision", "unet", "vae"))))[0][0]
    features = call("WeGenEncode", model=partial, image=picture())[0][0]
    assert call("WeGenDecode", features=features, decoder=partial)[0][0].shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match="eye: the model folder has no projectors|eye: the model folder has no language"):
        call("WeGenChat", model=partial, message="hello")


def test_a_graph_that_waits_for_a_picture_gets_the_one_that_a_command_brought_back(tmp_path):
    from wegen.nodes.load import WeGenLoadModel

    model = WeGenLoadModel().load(str(tiny_model(tmp_path / "short", memory=1)))[0]
    _, _, talk, first, image = paint(model)
    asked = call("WeGenChat", model=model, message="redder", picture="always", max_tokens=4, chat=talk)[0][0]
    second, talk = call("WeGenDraw", model=model, chat=asked)[0]
    (back, reply, boxes, drawable), shown = call("WeGenChat", model=model, message="undo", chat=talk)
    assert reply.startswith("Taken back.") and shown[0] == reply and boxes == [] and drawable
    (features, after), _ = call("WeGenDraw", model=model, chat=back)
    assert torch.equal(features.tokens, first.tokens) and len(after.turns) == 2
    assert torch.equal(call("WeGenDecode", features=features, decoder=model, seed=7)[0][0], image)
    back = call("WeGenChat", model=model, message="the second picture", chat=after)[0][0]
    assert torch.equal(call("WeGenDraw", model=model, chat=back)[0][0].tokens, second.tokens)
