"""Adapters: what a hook adds while training is what the file adds to the weights afterwards."""

import pytest
import torch
from wegen.tests.support import tiny_config, tiny_model
from wegen.wegen_model.features import Features
from wegen.wegen_model.models.decoder import Decoder
from wegen.wegen_model.models.lora import Adapters, merge, read_lora, save_lora
from wegen.wegen_model.pipeline import WeGenDecoder
from wegen.wegen_model.runtime import Runtime


def decoder():
    config = tiny_config()
    torch.manual_seed(0)
    return config, Decoder(config.decoder, config.unet, config.vae, config.scheduler).eval()


def adapted(rank: int = 4, alpha: float | None = 2.0):
    config, made = decoder()
    adapters = Adapters("unet", made.unet, rank, alpha)
    for p in adapters.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    return config, made, adapters


def denoise(made) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 64, 32, generator=g)
    with torch.no_grad():
        return made.denoise(torch.randn(1, 4, 16, 16, generator=g), torch.tensor([500]), tokens, tokens.mean(1), torch.ones(1, 6))


def test_a_new_adapter_changes_nothing():
    _, plain = decoder()
    _, made = decoder()
    Adapters("unet", made.unet, 4)
    assert torch.equal(denoise(plain), denoise(made))


def test_merging_the_file_gives_what_was_trained(tmp_path):
    config, made, adapters = adapted()
    path = save_lora(tmp_path / "a.safetensors", adapters.tensors(), {"wegen_space": config.decoder.space})
    _, merged = decoder()
    before = denoise(merged)
    count = merge(merged.unet, "unet", read_lora(path, config.decoder.space))
    assert count == len(adapters.alphas) > 10
    assert torch.allclose(denoise(made), denoise(merged), atol=1e-4) and not torch.allclose(before, denoise(merged), atol=1e-2)


def test_strengths_add_up(tmp_path):
    _, _, adapters = adapted()
    tensors = adapters.tensors()
    (_, once), (_, twice) = decoder(), decoder()
    merge(once.unet, "unet", tensors, 1.0)
    for _ in range(2):
        merge(twice.unet, "unet", tensors, 0.5)
    assert torch.allclose(denoise(once), denoise(twice), atol=1e-4)


def test_a_decoder_takes_one_and_the_original_stays(tmp_path):
    folder = tiny_model(tmp_path / "tiny")
    config, _, adapters = adapted()
    path = save_lora(tmp_path / "a.safetensors", adapters.tensors(), {"wegen_space": config.decoder.space})
    plain = WeGenDecoder.load(folder, Runtime("cpu", torch.float32))
    f = config.features
    features = Features(torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0)), f.grid, f.space, f.tower)
    before = plain.decode(features)
    assert not torch.allclose(plain.with_lora(path).decode(features), before, atol=1e-2)
    assert torch.equal(plain.with_lora(path, 0.0).decode(features), before) and torch.equal(plain.decode(features), before)


def test_what_fits_no_decoder_is_refused(tmp_path):
    config, made, adapters = adapted()
    path = save_lora(tmp_path / "a.safetensors", adapters.tensors(), {"wegen_space": "elsewhere"})
    with pytest.raises(ValueError, match=f"was trained for the features 'elsewhere', this decoder reads '{config.decoder.space}'"):
        read_lora(path, config.decoder.space)
    (tmp_path / "b.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="b.safetensors cannot be read"):
        read_lora(tmp_path / "b.safetensors")
    save_lora(tmp_path / "c.safetensors", {"x.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="holds no LoRA"):
        read_lora(tmp_path / "c.safetensors")
    strange = {"lora_unet_nowhere.lora_down.weight": torch.ones(1, 4), "lora_unet_nowhere.lora_up.weight": torch.ones(4, 1)}
    with pytest.raises(ValueError, match="made for another model: 1 of its 1 layers are not in this one .lora_unet_nowhere."):
        merge(made.unet, "unet", strange)
    wrong = {k: v[:, :-1] if k.endswith("down.weight") else v for k, v in adapters.tensors().items()}
    with pytest.raises(ValueError, match="is for a layer of"):
        merge(made.unet, "unet", wrong)
