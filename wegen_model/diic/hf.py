"""Models of transformers: any image-text-to-text captioner, zero-shot detection (Grounding DINO, MM Grounding DINO, OWLv2, OWL-ViT; SAM 3 by
its words), tracking of boxes (SAM 2, SAM 3 and EdgeTAM video), and a vision tower's embedding.

Names are ids or folders, as transformers loads them; one model of a kind a process, on CUDA where there is one. n pictures a call (`batch`)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..chat.conversation import Box
from ..data.optional import need
from ..data.readers.files import box as fraction_box
from .models import Found

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LEAST, NAMED = 0.1, 0.2  # score of a detection that is looked at (the option `score` decides); of a word that names it
TRACKERS = {  # model_type of the folder's config -> model and processor that follow boxes
    "sam2_video": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "sam2": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "edgetam_video": ("EdgeTamVideoModel", "Sam2VideoProcessor"),
    "edgetam": ("EdgeTamVideoModel", "Sam2VideoProcessor"),
    "sam3_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
    "sam3_tracker_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
}


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights and activations; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    return getattr(torch, ("bfloat16" if DEVICE == "cuda" else "float32") if precision == "auto" else precision)


class _Model:
    """A model of transformers with its processor, in a precision, fed `batch` pictures a call."""

    def __init__(self, name: str, precision: str = "auto", batch: int = 8):
        self.transformers, self.name, self.batch, self.dtype = need("transformers"), name, batch, dtype_of(precision)

    def load(self, kind: str, name: str) -> Any:
        return getattr(self.transformers, kind).from_pretrained(name, dtype=self.dtype).to(DEVICE).eval()

    def processor_of(self, kind: str, name: str) -> Any:
        return getattr(self.transformers, kind).from_pretrained(name)

    def model_type(self, name: str) -> str:
        return self.transformers.AutoConfig.from_pretrained(name).model_type

    def batches(self, pictures: Sequence[np.ndarray]) -> Iterator[list[Image.Image]]:
        for i in range(0, len(pictures), self.batch):
            yield [Image.fromarray(p) for p in pictures[i : i + self.batch]]

    def put(self, inputs: Any) -> Any:
        """On the device, numbers in the model's precision."""
        return inputs.to(DEVICE, self.dtype)


class Captioner(_Model):
    """`transformers:ID` or `transformers:ID#PROMPT`: the prompt asks for a short or a long caption."""

    def __init__(self, name: str, precision: str = "auto", batch: int = 8):
        name, _, self.prompt = name.partition("#")
        super().__init__(name, precision, batch)
        self.processor = self.processor_of("AutoProcessor", name)
        self.model = self.load("AutoModelForImageTextToText", name)
        if getattr(self.processor, "tokenizer", None) is not None:
            self.processor.tokenizer.padding_side = "left"  # of a batch of prompts: what follows is generated

    def caption(self, picture: np.ndarray) -> str:
        return self.captions([picture])[0]

    @torch.no_grad()
    def captions(self, pictures: Sequence[np.ndarray]) -> list[str]:
        out = []
        for images in self.batches(pictures):
            inputs = self.put(self._inputs(images))
            ids = self.model.generate(**inputs, max_new_tokens=160, do_sample=False)
            if "input_ids" in inputs and ids.shape[1] > inputs["input_ids"].shape[1]:
                ids = ids[:, inputs["input_ids"].shape[1] :]
            out += [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]
        return out

    def _inputs(self, images: list[Image.Image]) -> Any:
        if self.prompt and getattr(self.processor, "chat_template", None):
            said = [
                [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]}]
                for image in images
            ]
            return self.processor.apply_chat_template(
                said, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
            )
        words = {"text": [self.prompt] * len(images), "padding": True} if self.prompt else {}
        return self.processor(images=images, return_tensors="pt", **words)


class Detector(_Model):
    """`transformers:ID` of a zero-shot object detector, or of SAM 3 video, which finds each phrase in all of a shot's frames."""

    def __init__(self, name: str, precision: str = "auto", batch: int = 8):
        super().__init__(name, precision, batch)
        self.by_words = self.model_type(name) == "sam3_video"
        self.processor = self.processor_of("Sam3VideoProcessor" if self.by_words else "AutoProcessor", name)
        self.model = self.load("Sam3VideoModel" if self.by_words else "AutoModelForZeroShotObjectDetection", name)

    def detect(self, picture: np.ndarray, phrases: Sequence[str]) -> Found:
        return self.detections([picture], phrases)[0]

    @torch.no_grad()
    def detections(self, pictures: Sequence[np.ndarray], phrases: Sequence[str]) -> list[Found]:
        if not phrases:
            return [[] for _ in pictures]
        if self.by_words:
            return self._in_shot(pictures, list(phrases))
        names, out = [" ".join(re.findall(r"[\w'-]+", p.lower())) for p in phrases], []
        for images in self.batches(pictures):
            inputs = self.put(self.processor(images=images, text=[names] * len(images), return_tensors="pt", padding=True))
            sizes = [(image.height, image.width) for image in images]  # OWLv2 pads to a square: fractions would be the square's
            more = (
                {"text_labels": [names] * len(images)}
                if "owl" in self.model.config.model_type
                else {"input_ids": inputs["input_ids"], "text_threshold": NAMED}
            )
            post = self.processor.post_process_grounded_object_detection(self.model(**inputs), threshold=LEAST, target_sizes=sizes, **more)
            out += [self._named(found, names, *size) for found, size in zip(post, sizes)]
        return out

    def _named(self, found: dict, names: list[str], h: int, w: int) -> Found:
        out: Found = []
        for score, (x0, y0, x1, y1), label in zip(found["scores"].tolist(), found["boxes"].tolist(), found["text_labels"]):
            made, which = fraction_box(x0 / w, y0 / h, x1 / w, y1 / h), nearest(label, names)
            if made is not None and which is not None:
                out.append((which, made, float(score)))
        return out

    def _in_shot(self, pictures: Sequence[np.ndarray], phrases: list[str]) -> list[Found]:
        session = self.processor.init_video_session(video=list(pictures), inference_device=DEVICE, dtype=self.dtype)
        session = self.processor.add_text_prompt(session, phrases)
        out: list[Found] = [[] for _ in pictures]
        h, w = pictures[0].shape[:2]
        for step in self.model.propagate_in_video_iterator(session):
            made = self.processor.postprocess_outputs(session, step)
            which = {thing: phrases.index(text) for text, things in made["prompt_to_obj_ids"].items() for thing in things}
            for thing, score, (x0, y0, x1, y1) in zip(made["object_ids"].tolist(), made["scores"].tolist(), made["boxes"].tolist()):
                b = fraction_box(x0 / w, y0 / h, (x1 + 1) / w, (y1 + 1) / h)
                if b is not None:
                    out[step.frame_idx].append((which[thing], b, float(score)))
        return out


def nearest(label: str, names: Sequence[str]) -> int | None:
    """The phrase that a detector's label means: itself, or the one that shares most of its words (Grounding DINO answers with those that it saw)."""
    label = " ".join(re.findall(r"[\w'-]+", label.lower()))
    if label in names:
        return list(names).index(label)
    said = set(label.split())
    shared = [len(said & set(name.split())) / len(said | set(name.split())) if said else 0.0 for name in names]
    best = max(range(len(names)), key=shared.__getitem__)
    return best if shared[best] > 0 else None


class Tracker(_Model):
    """`transformers:ID` of SAM 2, SAM 3 or EdgeTAM video: boxes in the first frame, the boxes of their masks in the others."""

    def __init__(self, name: str, precision: str = "auto", batch: int = 8):
        super().__init__(name, precision, batch)
        kind = self.model_type(name)
        if kind not in TRACKERS:
            raise ValueError(f"--tracker transformers:{name}: a {kind} follows no boxes; those that do are {', '.join(TRACKERS)}.")
        model, processor = TRACKERS[kind]
        self.processor, self.model = self.processor_of(processor, name), self.load(model, name)

    @torch.no_grad()
    def track(self, frames: Sequence[np.ndarray], boxes: Sequence[Box]) -> list[list[Box | None]]:
        h, w = frames[0].shape[:2]
        session = self.processor.init_video_session(video=list(frames), inference_device=DEVICE, dtype=self.dtype)
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


class Embedder(_Model):
    """`transformers:ID` of CLIP, DINOv2 or another tower: its pooled output."""

    def __init__(self, name: str, precision: str = "auto", batch: int = 8):
        super().__init__(name, precision, batch)
        self.processor, self.model = self.processor_of("AutoImageProcessor", name), self.load("AutoModel", name)

    @torch.no_grad()
    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for images in self.batches(crops):
            inputs = self.put(self.processor(images=images, return_tensors="pt"))
            if hasattr(self.model, "vision_model"):
                x = self.model.vision_model(**inputs).pooler_output
            else:
                out = self.model(**inputs)
                x = out.pooler_output if getattr(out, "pooler_output", None) is not None else out.last_hidden_state.mean(1)
            rows.append(torch.nn.functional.normalize(x.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)
