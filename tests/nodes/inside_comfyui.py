"""A script for ComfyUI's interpreter, run by test_sampling.py: sampling, memory and previews inside ComfyUI's own modules, no server.

python inside_comfyui.py COMFYUI PACK MODELS        prints SAID and JSON; MODELS holds `tiny` (support.py)
"""

import gc
import importlib.util
import json
import os
import sys
import weakref

comfyui, root, models = sys.argv[1:4]
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.ldm.modules.diffusionmodules.openaimodel as openai  # noqa: E402
import comfy.lora  # noqa: E402
import comfy.model_detection  # noqa: E402
import comfy.model_management as mm  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy.cli_args import LatentPreviewMethod, args  # noqa: E402

import nodes  # noqa: E402

folder_paths.folder_names_and_paths["wegen"] = ([models], set())
spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["a_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
pack.NODE_CLASS_MAPPINGS  # what ComfyUI asks for; the nodes are loaded then
sampling = sys.modules["a_pack.nodes.host.sampling"]
config = importlib.import_module("a_pack.wegen_model.config")
said = {}


def run(node, **inputs):
    cls = pack.NODE_CLASS_MAPPINGS[node]
    answer = getattr(cls(), cls.FUNCTION)(**inputs)
    return answer["result"] if isinstance(answer, dict) else answer


def far(a, b):
    return float((a.float() - b.float()).abs().max())


def near(a, b):
    return float((a.float() - b.float()).abs().mean())


def sample(patcher, conditioning, latent, seed=3, steps=10, cfg=1.5, sampler="euler", scheduler="simple", **options):
    return nodes.common_ksampler(patcher, seed, steps, cfg, sampler, scheduler, *conditioning, latent, **options)[0]["samples"]


def error(function, *inputs, **options):
    try:
        function(*inputs, **options)
    except ValueError as caught:
        return str(caught)
    return ""


def same_as_decoder():
    """euler with the decoder's own timesteps, both ways."""
    (model,) = run("WeGenLoadModel", model="tiny", dtype="float32")
    features = model.features(torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0)))
    patcher, vae = run("WeGenDecoderToModel", decoder=model)
    conditioning = run("WeGenFeaturesToConditioning", features=features)
    (ours,) = run("WeGenDecode", features=features, decoder=model, seed=3, use_defaults=False, steps=50, guidance_scale=2.0)
    latent = {"samples": torch.zeros(2, 4, 16, 16)}
    said["released"] = far(ours, vae.decode(sample(patcher, conditioning, latent, steps=50, cfg=2.0, scheduler="ddim_uniform")))
    noise = nodes.common_ksampler(patcher, 3, 50, 2.0, "euler", "ddim_uniform", *conditioning, latent, last_step=0)[0]["samples"]
    said["spread"] = float(ours.std())
    said["noise"] = bool(torch.isfinite(noise).all())
    said["two features, three latents"] = error(sample, patcher, conditioning, {"samples": torch.zeros(3, 4, 16, 16)})
    said["text"] = error(sample, patcher, [[[torch.zeros(1, 77, 2048), {"pooled_output": torch.zeros(1, 1280)}]]] * 2, latent)
    said["another space"] = error(sample, patcher, [[[c[0][0], {**c[0][1], "wegen_space": "other"}]] for c in conditioning], latent)
    one = run("WeGenFeaturesToConditioning", features=features[:1])
    said["one feature, two latents"] = list(sample(patcher, one, latent).shape)
    export = importlib.import_module("a_pack.wegen_model.checkpoint.convert").export
    export(os.path.join(models, "tiny"), os.path.join(models, "unet.safetensors"), "ldm-unet")
    written = comfy.utils.load_torch_file(os.path.join(models, "unet.safetensors"))
    held = sampling.renamed(model.folder, patcher.model.model_config.unet_config)
    written = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in written.items()}  # as Load Diffusion Model does
    said["layout"] = set(written) == set(held) and all(torch.equal(written[k], held[k]) for k in held)
    return model


def miniature():
    """wegen-mini: layout channels, AutoencoderDC, v-prediction with zero terminal SNR; and what people do with a MODEL."""
    (model,) = run("WeGenLoadModel", model="wegen-mini")
    chat, *_ = run("WeGenChat", model=model, message="a fox on a teal background", picture="always")
    features, _ = run("WeGenDraw", model=model, chat=chat)
    patcher, vae = run("WeGenDecoderToModel", decoder=model)
    conditioning = run("WeGenFeaturesToConditioning", features=features)
    empty = nodes.EmptyLatentImage().generate(128, 128, 1)[0]
    (ours,) = run("WeGenDecode", features=features, decoder=model, seed=3, use_defaults=False, steps=10, guidance_scale=1.5)
    latents = sample(patcher, conditioning, empty)
    said["mini"], said["mini latents"] = far(ours, vae.decode(latents)), list(latents.shape)
    said["ancestral"] = near(ours, vae.decode(sample(patcher, conditioning, empty, sampler="dpmpp_2m_sde")))

    start = {"samples": vae.encode(ours)}
    said["vae"] = near(ours, vae.decode(start["samples"]))
    other = 1 - ours
    rough = {d: near(other, vae.decode(sample(patcher, conditioning, {"samples": vae.encode(other)}, denoise=d))) for d in (0.2, 0.9)}
    said["img2img"] = rough[0.2], rough[0.9]
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1
    inside = nodes.SetLatentNoiseMask().set_mask(start, mask)[0]
    painted = sample(patcher, conditioning, inside, seed=9)
    said["inpaint keeps"], said["inpaint paints"] = far(painted[..., :7], start["samples"][..., :7]), far(painted, start["samples"])
    said["tiled"] = list(vae.decode_tiled(latents, tile_x=8, tile_y=8, overlap=2).shape)

    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    width, context = patcher.model.state_dict()[key].shape
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {f"{name}.lora_up.weight": torch.randn(width, 4), f"{name}.lora_down.weight": torch.randn(4, context)}
    for strength in (0.0, 1.0):
        with_lora, _ = comfy.sd.load_lora_for_models(patcher, None, lora, strength, 0)
        said[f"lora {strength}"] = far(latents, sample(with_lora, conditioning, empty))
    said["lora undone"] = far(latents, sample(patcher, conditioning, empty))

    previews = []
    args.preview_method = LatentPreviewMethod.Auto
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: previews.append(preview))
    sample(patcher, conditioning, empty)
    native = previews[-1][1]
    run("WeGenDecode", features=features, decoder=model, seed=3, use_defaults=False, steps=10, guidance_scale=1.5)
    own = [p for p in previews if p is not None][-1][1]
    comfy.utils.set_progress_bar_global_hook(None)
    small = torch.nn.functional.avg_pool2d(ours.movedim(-1, 1), 8)[0].movedim(0, -1)
    for kind, picture in (("preview of KSampler", native), ("preview of the node", own)):
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(*picture.size[::-1], 3) / 255
        said[kind] = near(small, pixels)

    args.fp8_e4m3fn_unet = True
    eighth, _ = run("WeGenDecoderToModel", decoder=model)
    args.fp8_e4m3fn_unet = False
    said["fp8"] = str(eighth.model.get_dtype())
    said["fp8 off by"] = near(ours, vae.decode(sample(eighth, conditioning, empty)))


def full_size():
    """What Load Diffusion Model makes of a full-size decoder's file, from shapes alone."""
    shape = sampling.unet_shape(config.SDXL_UNET)
    unet = openai.UNetModel(**{**shape, "num_heads": -1}, device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init)
    state = unet.state_dict() if not comfy.ops.__dict__.get("aimdo_enabled") else {}
    found = comfy.model_detection.model_config_from_unet(state, "")
    said["detected"] = type(found).__name__
    theirs = {**found.unet_config, "channel_mult": [320 * m for m in found.unet_config["channel_mult"]]}
    said["shape"] = {k: (v, theirs[k]) for k, v in shape.items() if k in theirs and v != theirs[k]}
    said["parameters"] = sum(v.numel() for v in state.values())


def graph(model, image):
    (features,) = run("WeGenEncode", model=model, image=image)
    chat, *_ = run("WeGenChat", model=model, message="a <image_1>", image_1=features, picture="always", max_tokens=6)
    drawn, _ = run("WeGenDraw", model=model, chat=chat, guidance=1.5)
    (picture,) = run("WeGenDecode", features=drawn, decoder=model, seed=1)
    patcher, vae = run("WeGenDecoderToModel", decoder=model)
    conditioning = run("WeGenFeaturesToConditioning", features=drawn)
    sampled = vae.decode(sample(patcher, conditioning, {"samples": torch.zeros(1, 4, 16, 16)}))
    return (features.tokens, drawn.tokens, picture, sampled), (patcher, vae)


def cancelling(model):
    """Cancel at the second tick of each kind of work; how many more came, and what the same work gives afterwards."""
    comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = comfy.utils.PROGRESS_THROTTLE_MIN_PERCENT = 0  # newer ComfyUI passes over quick ticks
    talking = {"message": "hello", "picture": "never", "temperature": 5.0, "top_p": 1.0, "max_tokens": 60}
    chat, *_ = run("WeGenChat", model=model, message="a cat", picture="always", max_tokens=4)
    image = torch.rand(1, 30, 40, 3, generator=torch.Generator().manual_seed(0))
    features = model.features(torch.zeros(1, 64, 32))
    patcher, _ = run("WeGenDecoderToModel", decoder=model)
    conditioning = run("WeGenFeaturesToConditioning", features=features)
    work = {
        "chat": (60, lambda: torch.tensor(run("WeGenChat", model=model, **talking)[0].turns[-1].ids)),
        "encode": (2, lambda: run("WeGenEncode", model=model, image=image)[0].tokens),
        "draw": (64, lambda: run("WeGenDraw", model=model, chat=chat, guidance=2.0)[0].tokens),
        "denoise": (30, lambda: run("WeGenDecode", features=features, decoder=model, use_defaults=False, steps=30)[0]),
        "vae": (4, lambda: run("WeGenDecode", features=features, decoder=model)[0]),
        "ksampler": (30, lambda: sample(patcher, conditioning, {"samples": torch.zeros(1, 4, 16, 16)}, steps=30)),
    }
    for name, (top, function) in work.items():
        want, late = function(), []

        def hook(value, total, preview, top=top, late=late, **_):
            mm.throw_exception_if_processing_interrupted()  # as the server's own hook does
            if late or total == top:
                late.append(value)
                if len(late) == (1 if name == "encode" else 2):
                    mm.interrupt_current_processing()

        comfy.utils.set_progress_bar_global_hook(hook)
        try:
            function()
            said[f"cancel {name}"] = 1000
        except mm.InterruptProcessingException:
            said[f"cancel {name}"] = len(late) - (1 if name == "encode" else 2)
        comfy.utils.set_progress_bar_global_hook(None)
        said[f"after cancel {name}"] = far(want, function())
    gc.collect()
    said["caches"] = sum(
        type(thing).__name__ == "Cache" and hasattr(thing, "keys") and isinstance(thing.keys, torch.Tensor) for thing in gc.get_objects()
    )


def memory(model):
    image = torch.rand(1, 30, 40, 3, generator=torch.Generator().manual_seed(0))
    asked, load = [], mm.load_models_gpu
    mm.load_models_gpu = lambda held, memory_required=0, **o: (
        asked.append(([type(h.model).__name__ for h in held], memory_required)),
        load(held, memory_required, **o),
    )[1]
    whole, _ = graph(model, image)
    mm.load_models_gpu = load
    said["asked"] = asked
    parts = [*model._components.values(), *model.painter._components.values()]
    for share in (2, 8):  # half and an eighth of the weights resident, the others fetched layer by layer
        mm.unload_all_models()
        for part in parts:
            part.handle.load(torch.device("cpu"), lowvram_model_memory=part.handle.model_size() // share)
        kept = [p.handle.loaded_size() for p in parts if p.name != "projectors"]
        whole_sizes = [p.handle.model_size() for p in parts if p.name != "projectors"]
        # newer ComfyUI keeps room for what it fetches, so that of an eighth nothing may stay
        said[f"partial {share}"] = [n < size and (n > 0 or share == 8) for n, size in zip(kept, whole_sizes)]
        load_back, mm.load_models_gpu = mm.load_models_gpu, lambda *_, **__: None
        features = model.encode(image)
        talk = model.chat(importlib.import_module("a_pack.wegen_model.chat.conversation").Conversation().user("a cat"), picture="always")
        got = model.draw(talk)[0].tokens, model.decode(features, seed=1)
        mm.load_models_gpu = load_back
        mm.unload_all_models()
        want = model.draw(talk)[0].tokens, model.decode(features, seed=1)
        said[f"partial {share} off by"] = max(far(a, b) for a, b in zip(got, want))
    on_cpu, state = mm.is_device_cpu, mm.vram_state
    mm.is_device_cpu, mm.vram_state = (lambda _: False), mm.VRAMState.NO_VRAM  # ComfyUI's own way with --novram
    mm.unload_all_models()
    said["novram off by"] = max(far(a, b) for a, b in zip(whole, graph(model, image)[0]))
    said["novram"] = [p.handle.model.model_lowvram for p in parts]
    mm.is_device_cpu, mm.vram_state = on_cpu, state
    (streaming,) = run("WeGenLoadModel", model="tiny", dtype="float32", offload="stream")
    got, (patcher, _) = graph(streaming, image)
    said["stream off by"] = max(far(a, b) for a, b in zip(whole, got))
    held = [p.handle for p in (*streaming._components.values(), *streaming.painter._components.values())] + [patcher]
    said["stream"] = [h.model.model_lowvram for h in held]
    (alone,) = run("WeGenLoadModel", model="tiny", offload="cpu")
    said["cpu"] = [str(p) for p in alone.runtime.place("language")]

    mm.unload_all_models()
    said["loaded after unload"] = len(mm.current_loaded_models)
    watched = [weakref.ref(t) for p in parts for t in p.module.parameters()] + [weakref.ref(p.module) for p in parts]
    watched += [weakref.ref(h.model) for h in held] + [weakref.ref(model.runtime), weakref.ref(streaming.runtime)]
    del parts, held, patcher, streaming, alone, got, whole
    return watched


try:
    with torch.inference_mode():
        tiny = same_as_decoder()
        miniature()
        full_size()
        cancelling(tiny)
        watched = memory(tiny)
        del tiny
        gc.collect()
        said["alive"], said["watched"] = [type(ref()).__name__ for ref in watched if ref() is not None], len(watched)
finally:
    sys.stdout.write("SAID" + json.dumps(said))
