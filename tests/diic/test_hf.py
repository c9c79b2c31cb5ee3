"""The models of transformers that the DIIC steps take, run with random weights of a few thousand numbers."""

import numpy as np
import pytest
import torch
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.diic import hf, models

transformers = pytest.importorskip("transformers", minversion="5.0", reason="these tests build models with transformers 5")

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
SIDE = {"height": 32, "width": 32}


@pytest.fixture(autouse=True)
def same_weights():
    """Random weights, the same whichever tests ran before."""
    torch.manual_seed(0)


def pil(name, module, **sizes):
    """The image processor that needs no torchvision."""
    from importlib import import_module

    return getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name + "Pil")(**sizes)


def letters():
    """Every byte, and every byte that ends a word, as CLIP's vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    names = sorted(ByteLevel.alphabet())
    vocab = {name: i for i, name in enumerate([*names, *(n + "</w>" for n in names), "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[])


def test_a_zero_shot_detector_gives_numbers_of_phrases_and_boxes_inside(tmp_path):
    tokenizer = letters()
    text = dict(
        SMALL,
        intermediate_size=32,
        vocab_size=len(tokenizer),
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = dict(SMALL, intermediate_size=32, image_size=32, patch_size=8)
    model = transformers.OwlViTForObjectDetection(transformers.OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16))
    torch.nn.init.constant_(model.class_head.logit_shift.bias, 3.0)  # sure of everything, and of large boxes
    torch.nn.init.constant_(model.box_head.dense2.bias, 4.0)
    model.save_pretrained(tmp_path)
    transformers.OwlViTProcessor(pil("OwlViTImageProcessor", "owlvit", size=SIDE, crop_size=SIDE), tokenizer).save_pretrained(tmp_path)
    detector = models.model("detector", f"transformers:{tmp_path}")
    found = detector.detect(PICTURE, ["a cat", "a red ball"])
    assert found and {i for i, _, _ in found} <= {0, 1} and all(0.1 <= score <= 1 and isinstance(b, Box) for _, b, score in found)
    assert detector.detect(PICTURE, []) == []


def test_an_embedder_gives_rows_of_length_one(tmp_path):
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    pil("BitImageProcessor", "bit", size={"shortest_edge": 32}, crop_size=SIDE).save_pretrained(tmp_path)
    rows = hf.Embedder(str(tmp_path)).embed([PICTURE, PICTURE[:10, :20], PICTURE])
    assert rows.shape == (3, 16) and np.allclose((rows**2).sum(1), 1, atol=1e-5)
    assert np.allclose(rows[0], rows[2]) and not np.allclose(rows[0], rows[1])


def test_a_captioner_gives_a_text(tmp_path):
    tokenizer = transformers.BertTokenizer(vocab={n: i for i, n in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"])})
    text = dict(
        SMALL,
        intermediate_size=32,
        vocab_size=7,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
        pad_token_id=0,
        encoder_hidden_size=16,
        max_position_embeddings=200,
    )
    config = transformers.BlipConfig(text_config=text, vision_config=dict(SMALL, intermediate_size=32, image_size=32, patch_size=8))
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    transformers.BlipProcessor(pil("BlipImageProcessor", "blip", size=SIDE), tokenizer).save_pretrained(tmp_path)
    said = hf.Captioner(str(tmp_path)).caption(PICTURE)
    assert isinstance(said, str) and set(said.split()) <= {"a", "cat"}


def words(*names):
    return transformers.BertTokenizer(vocab={n: i for i, n in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *names])})


@pytest.mark.parametrize("kind", ["GroundingDino", "MMGroundingDino"])
def test_grounding_dino_answers_with_the_phrases_that_were_asked_for(tmp_path, monkeypatch, kind):
    swin = transformers.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = transformers.BertConfig(**SMALL, vocab_size=10, intermediate_size=32, max_position_embeddings=64)
    sizes = dict(encoder_layers=1, decoder_layers=2, d_model=32, encoder_ffn_dim=16, decoder_ffn_dim=16)
    heads = dict(encoder_attention_heads=2, decoder_attention_heads=2, num_queries=10, max_text_len=16)
    config = getattr(transformers, f"{kind}Config")(backbone_config=swin, text_config=text, **sizes, **heads)
    getattr(transformers, f"{kind}ForObjectDetection")(config).save_pretrained(tmp_path)
    images = pil("GroundingDinoImageProcessor", "grounding_dino", size={"shortest_edge": 96, "longest_edge": 128})
    transformers.GroundingDinoProcessor(images, words(".", "a", "cat", "red", "ball")).save_pretrained(tmp_path)
    for name in ("LEAST", "NAMED"):
        monkeypatch.setattr(hf, name, 1e-6)  # random weights are sure of nothing
    one_by_one = hf.Detector(str(tmp_path), batch=1).detections([PICTURE, PICTURE[::-1].copy()], ["a cat", "A red ball."])
    together = hf.Detector(str(tmp_path), batch=2).detections([PICTURE, PICTURE[::-1].copy()], ["a cat", "A red ball."])
    assert len(together) == 2 and any(together)
    for alone, batched in zip(one_by_one, together):
        assert [i for i, _, _ in alone] == [i for i, _, _ in batched] and {i for i, _, _ in alone} <= {0, 1}
        assert np.allclose([s for _, _, s in alone], [s for _, _, s in batched], atol=1e-5)


def test_owlv2_pads_to_a_square_and_its_boxes_are_the_pictures(tmp_path):
    pytest.importorskip("scipy")  # Owlv2's own image processor needs it
    tokenizer = letters()
    ends = dict(pad_token_id=0, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    text = dict(SMALL, intermediate_size=32, vocab_size=len(tokenizer), max_position_embeddings=16, **ends)
    vision = dict(SMALL, intermediate_size=32, image_size=32, patch_size=8)
    model = transformers.Owlv2ForObjectDetection(transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    torch.nn.init.constant_(model.class_head.logit_shift.bias, 3.0)
    torch.nn.init.constant_(model.box_head.dense2.bias, 4.0)
    model.save_pretrained(tmp_path)
    transformers.Owlv2Processor(pil("Owlv2ImageProcessor", "owlv2", size=SIDE), tokenizer).save_pretrained(tmp_path)
    detector = models.model("detector", f"transformers:{tmp_path}")
    found = detector.detect(PICTURE, ["a cat", "a red ball"])  # 48 x 64, padded to 64 x 64
    inputs = detector.processor(images=[hf.Image.fromarray(PICTURE)], text=[["a cat", "a red ball"]], return_tensors="pt", padding=True)
    with torch.no_grad():
        raw = detector.model(**inputs)
    (square,) = detector.processor.post_process_grounded_object_detection(raw, threshold=hf.LEAST, target_sizes=[(64, 64)])
    inside = [hf.fraction_box(x0 / 64, y0 / 48, x1 / 64, y1 / 48) for x0, y0, x1, y1 in square["boxes"].tolist()]
    inside = [b for b in inside if b is not None]
    assert inside and len(found) == len(inside)
    assert all(np.allclose((a.x, a.y, a.width, a.height), (b.x, b.y, b.width, b.height), atol=1e-4) for (_, a, _), b in zip(found, inside))


@pytest.mark.parametrize(
    ("label", "which"), [("a red ball", 1), ("red ball", 1), ("cat", 0), ("A Cat.", 0), ("##x", None), ("", None), ("red cat ball", 1)]
)
def test_a_detectors_label_is_the_phrase_that_it_shares_most_words_with(label, which):
    assert hf.nearest(label, ["a cat", "a red ball"]) == which


def test_batches_and_precision_change_nothing_but_rounding(tmp_path):
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    pil("BitImageProcessor", "bit", size={"shortest_edge": 32}, crop_size=SIDE).save_pretrained(tmp_path)
    crops = [PICTURE[: 10 + 5 * i] for i in range(5)]
    one, many = (hf.Embedder(str(tmp_path), batch=n) for n in (1, 4))
    assert np.allclose(one.embed(crops), many.embed(crops), atol=1e-5)
    half = hf.Embedder(str(tmp_path), "bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16} and {p.dtype for p in one.model.parameters()} == {torch.float32}
    assert np.allclose(half.embed(crops), one.embed(crops), atol=0.05)
