"""What a part makes is checked: a weight that is no number gives an error that names part and weight, never a black picture."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from wegen.tests.support import picture
from wegen.wegen_model.chat.conversation import Conversation
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import NotANumber, Runtime, check_result, is_finite

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
CPU = Runtime("cpu", torch.float32)


def spoiled(tiny, tmp_path, file, key, value=float("nan")) -> WeGen:
    """The tiny model with one weight that is no number."""
    folder = tmp_path / "spoiled"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / file)
    tensors[key].view(-1)[0] = value
    save_file(tensors, folder / file, {"format": "pt"})
    return WeGen.load(folder, runtime=CPU)


def drawn(model: WeGen):
    return model.draw(model.chat(Conversation().user("a fox"), picture="always", max_tokens=2))


CASES = [
    ("vision.safetensors", "patch_embed.proj.weight", "tower", lambda m, f: m.encode(picture())),
    ("language/model.safetensors", "model.layers.0.mlp.gate_proj.weight", "language model", lambda m, f: m.chat(Conversation().user("a"))),
    ("language/model.safetensors", "lm_head.weight", "language model", lambda m, f: m.chat(Conversation().user("a"))),
    ("projectors.safetensors", "output_resampler.proj.weight", "projectors", lambda m, f: drawn(m)),
    ("projectors.safetensors", "input_resampler.proj.weight", "projectors", lambda m, f: drawn(m)),
    (UNET, "conv_in.weight", "UNet", lambda m, f: m.decode(f)),
    (VAE, "decoder.conv_in.weight", "VAE", lambda m, f: m.decode(f)),
    (VAE, "encoder.conv_in.weight", "VAE", lambda m, f: m.decode(f, original=picture(32, 32), mask=torch.ones(1, 32, 32))),
]


@pytest.mark.parametrize("file, key, part, call", CASES, ids=[f"{part}-{key}" for _, key, part, _ in CASES])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(tiny, tmp_path, file, key, part, call, value):
    features = WeGen.load(tiny, runtime=CPU).encode(picture())
    with pytest.raises(NotANumber, match=rf"The {part}.*NaN or infinity.*\({key}\).*Copy or convert"):
        call(spoiled(tiny, tmp_path, file, key, value), features)


def test_an_overflow_names_the_precision_and_what_to_try():
    layer = torch.nn.Linear(2, 2).half()
    with pytest.raises(NotANumber, match="VAE made a picture .*float16.*bfloat16 or float32"):
        check_result(torch.tensor([1.0, float("inf")]), "a picture", vae=layer)
    with pytest.raises(NotANumber, match="UNet made latents .*in bfloat16.*in float32"):
        check_result(torch.tensor([float("nan")]), "latents", unet=layer.bfloat16())


def test_what_is_whole_passes_as_it_is():
    made = torch.rand(3, 4)
    assert check_result(made, "features", vision=torch.nn.Linear(1, 1)) is made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_the_last_value_of_a_large_tensor_counts(dtype):
    values = torch.zeros(1 << 22).to(dtype)
    assert is_finite(values)
    values = torch.cat([values.float(), torch.tensor([float("nan")])]).to(dtype)
    assert not is_finite(values)
