"""A script for ComfyUI's interpreter, run by test_regional_attention.py: regional attention on ComfyUI's own MODEL, no server.

python regional_inside_comfyui.py COMFYUI PACK MODELS        prints SAID and JSON; MODELS holds `tiny` (support.py)
"""

import importlib
import importlib.util
import json
import sys

comfyui, root, models = sys.argv[1:4]
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.patcher_extension  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402

import nodes  # noqa: E402

folder_paths.folder_names_and_paths["wegen"] = ([models], set())
spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["a_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
pack.NODE_CLASS_MAPPINGS  # what ComfyUI asks for; the nodes are loaded then
library = importlib.import_module("a_pack.wegen_model.models.regional_attention")
Reference = importlib.import_module("a_pack.wegen_model.chat.conversation").Reference
Box = importlib.import_module("a_pack.wegen_model.box").Box
said = {}


def run(node, **inputs):
    cls = pack.NODE_CLASS_MAPPINGS[node]
    answer = getattr(cls(), cls.FUNCTION)(**inputs)
    return answer["result"] if isinstance(answer, dict) else answer


def far(a, b):
    return float((a.float() - b.float()).abs().max())


def sample(model, conditioning, latent, cfg=2.0, steps=5, sampler="euler", scheduler="ddim_uniform"):
    return nodes.common_ksampler(model, 3, steps, cfg, sampler, scheduler, *conditioning, latent)[0]["samples"]


def error(function, *inputs, **options):
    try:
        function(*inputs, **options)
    except ValueError as caught:
        return str(caught)
    return ""


def features(model, rows, seed):
    return model.features(2 * torch.randn(rows, 64, 32, generator=torch.Generator().manual_seed(seed)))


def one_call(patched, ours, given, latent_size):
    """Largest difference of one guided UNet call in the two hosts."""
    rows = 2 * len(given)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(len(given), 4, *latent_size, generator=generator).repeat(2, 1, 1, 1)
    tokens = torch.cat([given.tokens, torch.zeros_like(given.tokens)])
    decoder = ours._load()
    ids = decoder.time_ids(*(s * decoder.factor for s in latent_size), rows, x.device)
    t = torch.full((rows,), 500.0)
    bias = library.AttentionBias.of(ours.regional, latent_size, ours.config.decoder.grid, len(given))
    with library.biased(decoder.unet, bias):
        theirs = decoder.denoise(x, t, tokens, tokens.mean(1), ids)
    added = decoder.unet.add_time_proj(ids.flatten()).reshape(rows, -1)
    y = torch.cat([tokens.mean(1), added], 1)
    options = {**patched.model_options["transformer_options"], "wrappers": patched.wrappers, "cond_or_uncond": [0, 1]}
    return far(theirs, patched.model.diffusion_model(x, t, context=tokens, y=y, transformer_options=options)), float(theirs.std())


with torch.inference_mode():
    (model,) = run("WeGenLoadModel", model="tiny", dtype="float32")
    given, shown = features(model, 2, 0), features(model, 1, 1)
    patcher, vae = run("WeGenDecoderToModel", decoder=model)
    conditioning, latent = run("WeGenFeaturesToConditioning", features=given), {"samples": torch.zeros(2, 4, 16, 16)}
    plain = sample(patcher, conditioning, latent)
    references = (Reference(box=Box(0, 0, 0.5, 0.6)), Reference(box=Box(0.3, 0.3, 0.7, 0.7)))
    kinds = {
        "off": dict(locality=0.0),
        "locality": dict(locality=0.7),
        "references": dict(locality=0.0, reference_strength=5.0, references=references, reference_features=shown),
        "both": dict(locality=0.7, reference_strength=5.0, references=references, reference_features=shown),
        "one each": dict(locality=0.7, references=references, reference_features=features(model, 2, 4)),
    }
    for name, kind in kinds.items():
        (ours,) = run("WeGenRegionalAttention", decoder=model, **kind)
        (patched,) = run("WeGenRegionalAttentionModel", model=patcher, **kind)
        sampled, said[name] = sample(patched, conditioning, latent), {}
        said[name]["effect"] = far(sampled, plain)
        said[name]["through the decoder"] = far(sampled, sample(run("WeGenDecoderToModel", decoder=ours)[0], conditioning, latent))
        if name != "off":
            said[name]["call"], said[name]["size"] = one_call(patched, ours, given, (16, 16))
            said[name]["odd call"], _ = one_call(patched, ours, given, (10, 14))
        if name == "both":  # whole pictures, guided and not, at the steps at which both hosts agree
            for cfg in (2.0, 1.0):
                own = dict(seed=3, use_defaults=False, steps=50, guidance_scale=cfg)
                (picture,) = run("WeGenDecode", features=given, decoder=ours, **own)
                said[f"pictures at {cfg:g}"] = far(picture, vae.decode(sample(patched, conditioning, latent, cfg, 50)))
    said["patcher untouched"] = far(plain, sample(patcher, conditioning, latent))

    (patched,) = run("WeGenRegionalAttentionModel", model=patcher, **kinds["both"])
    both = sample(patched, conditioning, latent)
    (again,) = run("WeGenRegionalAttentionModel", model=patched, **kinds["both"])
    said["twice is once"] = far(both, sample(again, conditioning, latent))
    (off,) = run("WeGenRegionalAttentionModel", model=patched, locality=0.0)
    said["taken off"] = far(plain, sample(off, conditioning, latent))
    said["samplers"] = all(
        bool(torch.isfinite(sample(patched, conditioning, latent, 2.0, 5, name, "simple")).all())
        for name in ("dpmpp_2m", "euler_ancestral")
    )

    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    width, context = patcher.model.state_dict()[key].shape
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {f"{name}.lora_up.weight": torch.randn(width, 4), f"{name}.lora_down.weight": torch.randn(4, context)}
    after, _ = comfy.sd.load_lora_for_models(patched, None, lora, 1.0, 0)
    before, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0)
    (before,) = run("WeGenRegionalAttentionModel", model=before, **kinds["both"])
    with_lora = sample(after, conditioning, latent)
    said["lora"] = far(both, with_lora), far(with_lora, sample(before, conditioning, latent))

    seen = []
    beside = patched.clone()
    beside.set_model_attn2_output_patch(lambda n, extra: (seen.append(extra["block"]), n)[1])
    beside.set_model_attn2_patch(lambda n, k, v, extra: (n, k, v))
    said["patches beside"], said["patches ran"] = far(both, sample(beside, conditioning, latent)), len(seen)
    override = patched.clone()
    override.model_options["transformer_options"]["optimized_attention_override"] = lambda f, *a, **k: (
        seen.append("override"),
        f(*a, **k),
    )[1]
    seen.clear()
    said["override beside"], said["override ran"] = far(both, sample(override, conditioning, latent)), bool(seen)

    halves = [[t, {**o, "area": (8, 16, y, 0)}] for (t, o), y in ((conditioning[0][0], 0), (conditioning[0][0], 8))]
    said["areas"] = bool(torch.isfinite(sample(patched, (halves, conditioning[1]), latent)).all())

    foreign = patcher.clone()
    foreign.set_model_attn2_replace(lambda q, k, v, extra: q, "middle", 0)
    said["foreign before"] = error(run, "WeGenRegionalAttentionModel", model=foreign, **kinds["locality"])
    late = patched.clone()
    late.set_model_attn2_replace(lambda q, k, v, extra: q, "middle", 0)
    said["foreign after"] = error(sample, late, conditioning, latent)
    held = patched.model_options["transformer_options"]["patches_replace"]["attn2"]
    said["ip-adapter after"] = error(held["middle", 0].set_new_condition, None)
    longer = [[torch.cat([t, t], 1), dict(o)] for t, o in conditioning[0]]
    said["unequal"] = error(sample, patched, (longer, conditioning[1]), latent)
    three = dict(locality=0.7, references=references, reference_features=features(model, 3, 4))
    said["three pictures"] = error(sample, run("WeGenRegionalAttentionModel", model=patcher, **three)[0], conditioning, latent)
    said["no decoder"] = error(run, "WeGenRegionalAttentionModel", model=object(), locality=1.0)
sys.stdout.write("SAID" + json.dumps(said))
