"""At home in a running ComfyUI: progress, live text, previews, cancel, caching, the queue, unloading, KSampler, bad inputs.

With the miniature, prompts in API format. Skipped unless WEGEN_COMFYUI names a checkout; see conftest.py.
"""

import copy
import json
import shutil
import time

import numpy as np
import pytest
from wegen.tests.comfyui.server import ComfyError
from wegen.tests.comfyui.test_pack import furthest, pictures_of
from wegen.tests.support import tiny_model

pytestmark = pytest.mark.comfyui


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def graph(**changes) -> dict:
    """Words to a picture. `changes`: chat, draw or decode -> inputs."""
    chat = {
        "message": "a fox on a teal background",
        "picture": "always",
        "rewrite": False,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 0,
        "max_tokens": 64,
        "trim_oldest": False,
    }
    draw = {"guidance": 1.0, "mode": "autoregressive", "readout": "aligned", "trim_oldest": False}
    decode = {
        "seed": 3,
        "use_defaults": False,
        "steps": 12,
        "guidance_scale": 1.5,
        "use_default_size": True,
        "width": 128,
        "height": 128,
        "scheduler": "from decoder",
    }
    return {
        "model": node("WeGenLoadModel", model="wegen-mini", dtype="default"),
        "chat": node("WeGenChat", model=["model", 0], **{**chat, **changes.get("chat", {})}),
        "draw": node("WeGenDraw", model=["model", 0], chat=["chat", 0], **{**draw, **changes.get("draw", {})}),
        "decode": node("WeGenDecode", features=["draw", 0], decoder=["model", 0], **{**decode, **changes.get("decode", {})}),
        "shown": node("PreviewImage", images=["decode", 0]),
    }


def native(prompt: dict, steps: int, latents: int = 1) -> dict:
    """The same features painted by KSampler."""
    prompt = copy.deepcopy(prompt)
    prompt |= {
        "bridge": node("WeGenDecoderToModel", decoder=["model", 0]),
        "words": node("WeGenFeaturesToConditioning", features=["draw", 0]),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=latents),
        "sampler": node(
            "KSampler",
            model=["bridge", 0],
            positive=["words", 0],
            negative=["words", 1],
            latent_image=["empty", 0],
            seed=3,
            steps=steps,
            cfg=1.5,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "pixels": node("VAEDecode", samples=["sampler", 0], vae=["bridge", 1]),
        "painted": node("PreviewImage", images=["pixels", 0]),
    }
    return prompt


def post(comfy, prompt: dict) -> str:
    """Queue and go on."""
    return json.loads(comfy.post("/prompt", {"prompt": prompt}))["prompt_id"]


def wait(comfy, *ids: str) -> dict[str, dict]:
    """id -> the history's entry, when all have ended."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        ended = {i: comfy.get(f"/history/{i}").get(i) for i in ids}
        if all(ended.values()):
            return ended
        time.sleep(0.5)
    raise ComfyError(f"not all ended: {ids}")


@pytest.fixture(scope="module")
def plain(comfy):
    """The plain graph's run, from a cold cache."""
    comfy.free()
    run = comfy.queue(graph())
    assert run.status == "success", run.error
    return run


def test_every_step_ticks(plain):
    """Features and denoising steps move the bar, and values only rise; newer servers pass on only some a second, so not each is seen here
    (test_sampling.py counts them)."""
    for node, steps in (("draw", 64), ("decode", 12)):
        seen = [value for value, top in plain.progress(node) if top == steps]
        assert len(seen) >= 3 and seen == sorted(set(seen)), (node, seen)
    assert plain.progress("chat"), "reading the prompt"


def test_previews_and_live_text(comfy, plain):
    assert plain.sent("preview"), "no latent preview while decoding"
    talk = graph(chat={"message": "hello", "picture": "never", "temperature": 2.0, "top_p": 1.0, "max_tokens": 200})
    run = comfy.queue({name: talk[name] for name in ("model", "chat")})
    assert len(run.sent("text")) >= 2, "no live text while chatting"


def test_an_unchanged_graph_runs_nothing(comfy, plain):
    comfy.queue(graph())  # ComfyUI remembers the last prompt's nodes
    again = comfy.queue(graph())
    assert again.ran == [] and again.cached == set(graph())


def test_another_seed_of_the_decoder_runs_only_the_decoder(comfy, plain):
    comfy.queue(graph())
    run = comfy.queue(graph(decode={"seed": 4}))
    assert run.status == "success" and set(run.ran) == {"decode", "shown"}
    assert furthest(pictures_of(comfy, plain), pictures_of(comfy, run)) > 3


CANCELLED = {  # what is cancelled: changes that make it last, and the node
    "chat": ({"chat": {"message": "hello", "picture": "never", "temperature": 5.0, "top_p": 1.0, "max_tokens": 800}}, "chat", 800),
    "features": ({"draw": {"guidance": 2.0}}, "draw", 64),
    "denoising": ({"decode": {"seed": 5, "use_defaults": False, "steps": 400}}, "decode", 400),
    "VAE": (
        {
            "decode": {
                "seed": 6,
                "use_defaults": False,
                "steps": 1,
                "guidance_scale": 1.0,
                "use_default_size": False,
                "width": 1024,
                "height": 1024,
            }
        },
        "decode",
        None,
    ),
}


@pytest.mark.parametrize("what", CANCELLED)
def test_cancel_stops_and_the_next_prompt_runs(comfy, plain, what):
    changes, where, top = CANCELLED[what]
    asked = []

    def cancel(event):
        data = event["data"]
        if event["type"] == "progress" and data["node"] == where and (data["max"] == top if top else data["max"] > 1) and not asked:
            asked.append(data["value"])
            comfy.interrupt()

    comfy.free()
    run = comfy.queue(graph(**changes), on_event=cancel)
    assert run.status == "interrupted", run.error or "over before it could be cancelled"
    value, last = run.progress(where)[-1]
    assert value < last
    after = comfy.queue(graph())
    assert after.status == "success", after.error
    assert furthest(pictures_of(comfy, plain), pictures_of(comfy, after)) == 0


def test_two_prompts_queued_at_once(comfy, plain):
    comfy.free()
    ids = [post(comfy, graph(decode={"seed": seed})) for seed in (3, 9)]
    ended = list(wait(comfy, *ids).values())
    assert [e["status"]["status_str"] for e in ended] == ["success", "success"]
    assert all(e["outputs"]["shown"]["images"] for e in ended)


def test_unload_frees_the_models(comfy, plain):
    comfy.queue(graph(decode={"seed": 10}))
    before = comfy.log.count("Requested to load Language")
    comfy.free()
    assert comfy.queue(graph()).status == "success"
    assert comfy.log.count("Requested to load Language") == before + 1


def test_ksampler_paints_what_the_decoder_paints(comfy, plain):
    run = comfy.queue(native(graph(decode={"use_defaults": False, "steps": 10}), steps=10))
    assert run.status == "success", run.error
    ours, theirs = pictures_of(comfy, run)["shown"][0].astype(int), pictures_of(comfy, run)["painted"][0].astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert run.sent("preview"), "no preview from KSampler"


@pytest.mark.slow  # inductor compiles for minutes
def test_a_compiled_decoder_paints_the_same(comfy, plain):
    prompt = native(graph(decode={"use_defaults": False, "steps": 10}), steps=10)
    prompt["compiled"] = node("TorchCompileModel", model=["bridge", 0], backend="inductor")
    prompt["sampler"]["inputs"]["model"] = ["compiled", 0]
    before = comfy.log.count("torch._dynamo")
    run = comfy.queue(prompt)
    assert run.status == "success", run.error
    assert comfy.log.count("torch._dynamo") == before, comfy.log[-2000:]
    ours, theirs = pictures_of(comfy, run)["shown"][0].astype(int), pictures_of(comfy, run)["painted"][0].astype(int)
    assert np.abs(ours - theirs).max() <= 2


# --- bad input: a message on the node, no stack trace of ours to read -----------------------------------------------------


def message(run, where: str) -> str:
    assert run.status == "error"
    data = next(e["data"] for e in run.events if e["type"] == "execution_error")
    assert data["node_id"] == where and data["exception_type"].split(".")[-1] in ("ValueError", "CheckpointError")
    return data["exception_message"]


def test_a_decoder_socket_refuses_a_model(comfy):
    prompt = native(graph(), 10)
    prompt["decode"]["inputs"]["decoder"] = ["bridge", 0]
    answer = json.loads(comfy.post("/prompt", {"prompt": prompt}))  # the other outputs run all the same
    assert [(e["type"], e["extra_info"]["input_name"]) for e in answer["node_errors"]["decode"]["errors"]] == [
        ("return_type_mismatch", "decoder")
    ]
    wait(comfy, answer["prompt_id"])


def test_features_and_latents_of_different_number(comfy, plain):
    prompt = native(graph(), 10, latents=3)
    prompt |= {
        "pictures": node("EmptyImage", width=64, height=64, batch_size=2, color=255),
        "seen": node("WeGenEncode", model=["model", 0], image=["pictures", 0], fit="squash"),
    }
    prompt["words"]["inputs"]["features"] = ["seen", 0]
    said = message(comfy.queue({k: v for k, v in prompt.items() if k not in ("shown", "decode")}), "sampler")
    assert "features of 2 pictures for 3 latents" in said and "batch size to 2" in said


def test_a_mask_of_another_size_is_brought_to_the_cells(comfy, plain):
    prompt = graph()
    prompt |= {
        "white": node("SolidMask", value=1.0, width=300, height=37),
        "again": node(
            "WeGenDraw",
            model=["model", 0],
            chat=["chat", 0],
            guidance=1.0,
            mode="autoregressive",
            readout="aligned",
            trim_oldest=False,
            keep_features=["draw", 0],
            keep_mask=["white", 0],
        ),
    }
    prompt["decode"]["inputs"]["features"] = ["again", 0]
    run = comfy.queue(prompt)
    assert run.status == "success", run.error
    assert furthest(pictures_of(comfy, plain), pictures_of(comfy, run)) == 0, "all cells were kept"


def test_a_folder_removed_between_queueing_and_running(comfy, plain):
    folder = tiny_model(comfy.base / "models" / "wegen" / "gone", parts=("vision",))
    prompt = {
        "model": node("WeGenLoadModel", model="gone", dtype="default"),
        "pictures": node("EmptyImage", width=64, height=64, batch_size=1, color=255),
        "seen": node("WeGenEncode", model=["model", 0], image=["pictures", 0], fit="squash"),
        "words": node("WeGenFeaturesToConditioning", features=["seen", 0]),
        "text": node("PreviewAny", source=["words", 0]),
    }

    busy = graph(decode={"seed": 77, "use_defaults": False, "steps": 300})  # keeps the worker until the folder is gone
    post(comfy, busy)
    queued = post(comfy, prompt)
    shutil.rmtree(folder)
    ended = wait(comfy, queued)[queued]
    said = next(data for kind, data in ended["status"]["messages"] if kind == "execution_error")
    assert said["node_id"] == "model" and "there is no model folder 'gone'" in said["exception_message"]
