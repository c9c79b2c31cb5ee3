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


def test_a_tracker_gives_a_box_or_none_for_every_frame(tmp_path):
    pytest.importorskip("torchvision", reason="transformers' SAM 2 processors need torchvision")
    config = transformers.Sam2VideoConfig(
        vision_config=dict(
            backbone_config=dict(
                model_type="sam2_hiera_det_model",
                hidden_size=8,
                num_attention_heads=1,
                image_size=[64, 64],
                blocks_per_stage=[1, 1, 2, 1],
                embed_dim_per_stage=[8, 16, 32, 64],
                num_attention_heads_per_stage=[1, 1, 2, 2],
                window_size_per_stage=[4, 4, 4, 4],
                window_positional_embedding_background_size=[4, 4],
                global_attention_blocks=[3],
            ),
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=128,
        ),
        prompt_encoder_config=dict(hidden_size=128, image_size=64),
        mask_decoder_config=dict(hidden_size=128, mlp_dim=32, iou_head_hidden_dim=128),
        image_size=64,
        memory_attention_hidden_size=128,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_num_layers=1,
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        memory_fuser_embed_dim=128,
        memory_fuser_num_layers=1,
        mask_downsampler_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        memory_attention_rope_feat_sizes=[4, 4],
    )
    transformers.Sam2VideoModel(config).save_pretrained(tmp_path)
    size = {"height": 64, "width": 64}
    transformers.Sam2VideoProcessor(
        transformers.Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16}), transformers.Sam2VideoVideoProcessor(size=size)
    ).save_pretrained(tmp_path)
    paths = hf.Tracker(str(tmp_path)).track([PICTURE, PICTURE[::-1].copy(), PICTURE], [Box(0.1, 0.1, 0.4, 0.4), Box(0.5, 0.5, 0.3, 0.3)])
    assert [len(p) for p in paths] == [3, 3] and paths[0][0] == Box(0.1, 0.1, 0.4, 0.4)
    assert all(b is None or isinstance(b, Box) for p in paths for b in p)
