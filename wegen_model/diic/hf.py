"""Models of transformers: any image-text-to-text captioner, zero-shot detection, SAM 2 video, and a vision tower's embedding.

Names are ids or folders, as transformers loads them; one model a process, on CUDA where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..chat.conversation import Box
from ..data.optional import need
from ..data.readers.files import box as fraction_box

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Captioner:
    """`transformers:ID` or `transformers:ID#PROMPT`: the prompt asks for a short or a long caption."""

    def __init__(self, name: str):
        t = need("transformers")
        name, _, self.prompt = name.partition("#")
        self.processor = t.AutoProcessor.from_pretrained(name)
        self.model = t.AutoModelForImageTextToText.from_pretrained(name).to(DEVICE).eval()

    @torch.no_grad()
    def caption(self, picture: np.ndarray) -> str:
        image = Image.fromarray(picture)
        if self.prompt and getattr(self.processor, "chat_template", None):
            said = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]}]
            inputs = self.processor.apply_chat_template(
                said, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        else:
            inputs = self.processor(images=image, text=self.prompt or None, return_tensors="pt")
        inputs = inputs.to(DEVICE)
        ids = self.model.generate(**inputs, max_new_tokens=160, do_sample=False)
        if "input_ids" in inputs and ids.shape[1] > inputs["input_ids"].shape[1]:
            ids = ids[:, inputs["input_ids"].shape[1] :]
        return " ".join(self.processor.batch_decode(ids, skip_special_tokens=True)[0].split())


class Detector:
    """`transformers:ID` of a zero-shot object detector (Grounding DINO, OWL-ViT, OWLv2)."""

    def __init__(self, name: str):
        t = need("transformers")
        self.pipeline = t.pipeline("zero-shot-object-detection", model=name, device=DEVICE)

    def detect(self, picture: np.ndarray, phrases: Sequence[str]) -> list[tuple[int, Box, float]]:
        if not phrases:
            return []
        h, w = picture.shape[:2]
        out = []
        for found in self.pipeline(Image.fromarray(picture), candidate_labels=list(phrases), threshold=0.1):
            b = found["box"]
            made = fraction_box(b["xmin"] / w, b["ymin"] / h, b["xmax"] / w, b["ymax"] / h)
            label = found["label"].rstrip(". ")
            if made is not None and label in phrases:
                out.append((list(phrases).index(label), made, float(found["score"])))
        return out


class Tracker:
    """`transformers:ID` of SAM 2 video: boxes in the first frame, the boxes of their masks in the others.

    Not run: transformers' processors for it need torchvision, which was not there; test_hf.py runs it with random weights where it is.
    """

    def __init__(self, name: str):
        t = need("transformers")
        self.processor = t.Sam2VideoProcessor.from_pretrained(name)
        self.model = t.Sam2VideoModel.from_pretrained(name).to(DEVICE).eval()

    @torch.no_grad()
    def track(self, frames: Sequence[np.ndarray], boxes: Sequence[Box]) -> list[list[Box | None]]:
        h, w = frames[0].shape[:2]
        session = self.processor.init_video_session(video=list(frames), inference_device=DEVICE)
        corners = [[b.x * w, b.y * h, (b.x + b.width) * w, (b.y + b.height) * h] for b in boxes]
        self.processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=list(range(len(boxes))), input_boxes=[corners])
        self.model(session, frame_idx=0)
        out: list[list[Box | None]] = [[b] + [None] * (len(frames) - 1) for b in boxes]
        for step in self.model.propagate_in_video_iterator(session):
            masks = self.processor.post_process_masks([step.pred_masks], original_sizes=[[h, w]], binarize=True)[0]
            if step.frame_idx:
                for i, mask in zip(session.obj_ids, masks[:, 0].bool().cpu().numpy()):
                    out[i][step.frame_idx] = _around(mask)
        return out


def _around(mask: np.ndarray) -> Box | None:
    """The box of a mask (h,w); None of one that is empty or a speck."""
    if mask.sum() < 1e-4 * mask.size:
        return None
    (top, bottom), (left, right) = ((v.min(), v.max() + 1) for v in np.nonzero(mask))
    h, w = mask.shape
    return fraction_box(left / w, top / h, right / w, bottom / h)


class Embedder:
    """`transformers:ID` of CLIP, DINOv2 or another tower: its pooled output."""

    def __init__(self, name: str):
        t = need("transformers")
        self.processor = t.AutoImageProcessor.from_pretrained(name)
        self.model = t.AutoModel.from_pretrained(name).to(DEVICE).eval()

    @torch.no_grad()
    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        inputs = self.processor(images=[Image.fromarray(c) for c in crops], return_tensors="pt").to(DEVICE)
        if hasattr(self.model, "vision_model"):
            x = self.model.vision_model(**inputs).pooler_output
        else:
            out = self.model(**inputs)
            x = out.pooler_output if getattr(out, "pooler_output", None) is not None else out.last_hidden_state.mean(1)
        return torch.nn.functional.normalize(x.float(), dim=-1).cpu().numpy()
