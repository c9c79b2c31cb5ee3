"""The video models of transformers that DIIC offers, SAM 2, SAM 3 and EdgeTAM, run with random weights of a few hundred thousand numbers."""

import pytest
import torch
from wegen.tests.diic.test_hf import PICTURE, SMALL, letters
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.diic import hf

transformers = pytest.importorskip("transformers", minversion="5.0", reason="these tests build models with transformers 5")
pytest.importorskip("torchvision", reason="transformers' video processors need torchvision")

FRAMES = [PICTURE, PICTURE[::-1].copy(), PICTURE]
BOXES = [Box(0.1, 0.1, 0.4, 0.4), Box(0.5, 0.5, 0.3, 0.3)]
WIDTH = 128
DECODER = dict(hidden_size=WIDTH, mlp_dim=32, iou_head_hidden_dim=WIDTH)
MEMORY = dict(
    memory_attention_hidden_size=WIDTH,
    memory_attention_num_layers=1,
    memory_encoder_hidden_size=WIDTH,
    memory_encoder_output_channels=64,
    memory_fuser_embed_dim=WIDTH,
    memory_fuser_num_layers=1,
    mask_downsampler_embed_dim=WIDTH,
    memory_fuser_intermediate_dim=32,
    memory_attention_rope_feat_sizes=[4, 4],
)


def processors(side):
    size = {"height": side, "width": side}
    images = transformers.Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16})
    return images, transformers.Sam2VideoVideoProcessor(size=size)


def sam2(folder):
    backbone = dict(
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
    )
    channels = dict(backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=WIDTH)
    config = transformers.Sam2VideoConfig(
        vision_config=dict(backbone_config=backbone, **channels),
        prompt_encoder_config=dict(hidden_size=WIDTH, image_size=64),
        mask_decoder_config=DECODER,
        image_size=64,
        memory_attention_feed_forward_hidden_size=WIDTH,
        **MEMORY,
    )
    transformers.Sam2VideoModel(config).save_pretrained(folder)
    transformers.Sam2VideoProcessor(*processors(64)).save_pretrained(folder)


def edgetam(folder):
    pytest.importorskip("timm", reason="EdgeTAM's backbone is timm's")
    backbone = dict(
        model_type="timm_wrapper",
        architecture="repvit_m1",
        num_classes=2,
        model_args=dict(in_chans=3, features_only=True, out_indices=[0, 1, 2, 3]),
    )
    channels = dict(backbone_channel_list=[384, 192, 96, 48], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=WIDTH)
    config = transformers.EdgeTamVideoConfig(
        vision_config=dict(model_type="edgetam_vision_model", backbone_config=backbone, **channels),
        prompt_encoder_config=dict(hidden_size=WIDTH, image_size=64),
        mask_decoder_config=DECODER,
        image_size=64,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_k_sizes=[2, 2],
        perceiver_resampler_num_latents=4,
        perceiver_resampler_num_latents_2d=4,
        perceiver_resampler_mlp_intermediate_size=64,
        **MEMORY,
    )
    transformers.EdgeTamVideoModel(config).save_pretrained(folder)
    transformers.Sam2VideoProcessor(*processors(64)).save_pretrained(folder)


def sam3_vision():
    backbone = dict(
        model_type="sam3_vit_model",
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    )
    sizes = dict(backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], scale_factors=[4.0, 2.0, 1.0, 0.5])
    return dict(backbone_config=backbone, fpn_hidden_size=WIDTH, **sizes)


def sam3_tracker():
    return dict(
        vision_config=sam3_vision(),
        prompt_encoder_config=dict(hidden_size=WIDTH, image_size=56, patch_size=14),
        mask_decoder_config=dict(DECODER, num_attention_heads=2),
        memory_attention_feed_forward_hidden_size=64,
        image_size=56,
        **MEMORY,
    )


def sam3_tracker_video(folder):
    transformers.Sam3TrackerVideoModel(transformers.Sam3TrackerVideoConfig(**sam3_tracker())).save_pretrained(folder)
    transformers.Sam3TrackerVideoProcessor(*processors(56)).save_pretrained(folder)


def sam3_video(folder):
    tokenizer = letters()
    tokenizer.pad_token = tokenizer.eos_token
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    text = {**SMALL, "hidden_size": 32, "intermediate_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 32, **ends}
    layer = dict(hidden_size=WIDTH, num_attention_heads=2)
    detector = dict(
        model_type="sam3",
        vision_config=sam3_vision(),
        text_config=text | {"projection_dim": 32},
        geometry_encoder_config=dict(layer, num_layers=1, intermediate_size=32),
        detr_encoder_config=dict(layer, num_layers=1, intermediate_size=32),
        detr_decoder_config=dict(layer, num_layers=1, num_queries=6, intermediate_size=32),
        mask_decoder_config=layer,
    )
    config = transformers.Sam3VideoConfig(
        detector_config=detector,
        tracker_config=dict(sam3_tracker(), model_type="sam3_tracker_video"),
        low_res_mask_size=16,
        score_threshold_detection=0.0,
        new_det_thresh=0.0,
        hotstart_delay=0,
        hotstart_unmatch_thresh=0,
        hotstart_dup_thresh=0,
        fill_hole_area=0,
    )
    transformers.Sam3VideoModel(config).save_pretrained(folder)
    transformers.Sam3VideoProcessor(*processors(56), tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("build", [sam2, sam3_tracker_video, edgetam])
def test_a_tracker_gives_a_box_or_none_for_every_frame(tmp_path, build):
    torch.manual_seed(0)
    build(tmp_path)
    paths = hf.Tracker(str(tmp_path)).track(FRAMES, BOXES)
    assert [len(p) for p in paths] == [3, 3] and [p[0] for p in paths] == BOXES
    assert all(b is None or isinstance(b, Box) for p in paths for b in p)


def test_sam_3_finds_phrases_in_every_frame_of_a_shot_and_follows_boxes(tmp_path):
    """One folder serves as detector, by words, and as tracker, by boxes: facebook/sam3 is such a one."""
    torch.manual_seed(0)
    sam3_video(tmp_path)
    found = hf.Detector(str(tmp_path)).detections(FRAMES, ["a cat", "a red ball"])
    assert len(found) == 3 and all(found) and {i for some in found for i, _, _ in some} == {0, 1}
    assert all(isinstance(b, Box) and 0 <= score <= 1 for some in found for _, b, score in some)
    (path,) = hf.Tracker(str(tmp_path)).track(FRAMES, BOXES[:1])
    assert path[0] == BOXES[0] and len(path) == 3


def test_a_model_that_follows_nothing_is_refused_by_name(tmp_path):
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a dinov2 follows no boxes; those that do are sam2_video"):
        hf.Tracker(str(tmp_path))
