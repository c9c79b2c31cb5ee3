"""One reader of pictures: what it gives for odd pictures, and what it says of those it refuses."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from wegen.nodes import ui_messages
from wegen.tests.support import tiny_config
from wegen.wegen_model import images
from wegen.wegen_model.data.image_folder import PictureFolder
from wegen.wegen_model.data.record import decode
from wegen.wegen_model.models.eva_clip import prepare
from wegen.wegen_model.workflow.spec import Folders
from wegen.wegen_model.workflow.standins import LoadImage

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def encoded(image, kind="PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(width=20000, height=10000) -> bytes:
    """A header that announces many pixels; nothing is allocated unless somebody believes it."""
    return (
        images.PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"\0"))
    )


@pytest.fixture(params=["read", "read_float", "read_frames", "dataset", "training", "panel", "load image"])
def reader(request, tmp_path, monkeypatch):
    """Each way in which the project opens a picture: bytes -> (h,w,3) float in 0..1."""

    def put(data: bytes):
        (tmp_path / "a.png").write_bytes(data)
        return tmp_path / "a.png"

    def panel(data):
        put(data)
        monkeypatch.chdir(tmp_path)
        return ui_messages.load_picture({"filename": "a.png", "subfolder": "", "type": "input"}, "turn 1")[0].numpy()

    def training(data):
        put(data)
        (sample,) = PictureFolder(tmp_path).samples(0, 0, 1, 1)
        return sample.turns[-1].drawn / 255

    return {
        "read": lambda data: images.read(put(data)) / 255,
        "read_float": lambda data: images.read_float(put(data))[0].numpy(),
        "read_frames": lambda data: images.read_frames(put(data))[0][0].numpy(),
        "dataset": lambda data: decode(data, "a.png") / 255,
        "training": training,
        "panel": panel,
        "load image": lambda data: LoadImage().load_image(str(put(data)), Folders())[0][0].numpy(),
    }[request.param]


def test_grey_of_16_bits_is_not_white(reader):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    assert reader(encoded(Image.fromarray(ramp))).mean() == pytest.approx(127.5 / 255, abs=1e-3)


def test_floats_are_not_black(reader):
    assert reader(encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")).mean() == pytest.approx(0.5, abs=3e-3)


def test_a_large_profile_and_a_large_text_do_not_matter(reader):
    text = PngInfo()
    text.add_text("comment", "x" * (3 << 20), zip=True)
    profile = np.random.default_rng(0).bytes(2 << 20)
    data = encoded(Image.fromarray(NOISE), icc_profile=profile, pnginfo=text)
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data)).load()
    assert np.array_equal((reader(data) * 255).round().astype(np.uint8), NOISE)


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda data: data[: len(data) // 2], "truncated|cut|incomplete|broken|1 are damaged"),
        (lambda data: b"no picture at all", "its bytes are of no known format|1 are damaged"),
        (lambda data: b"", "its bytes are of no known format|1 are damaged"),
        (lambda data: huge_png(), "more than 179 million pixels|1 are damaged"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(reader, damage, words):
    with pytest.raises(ValueError, match="a.png") as caught:
        reader(damage(encoded(Image.fromarray(NOISE))))
    assert re.search(words, str(caught.value))


def test_transparency_lies_over_white_and_is_a_mask_for_load_image(tmp_path):
    rgba = np.dstack([np.zeros((4, 4, 3), np.uint8), np.tile(np.array([0, 255], np.uint8), (4, 2))])
    keyed = encoded(Image.new("RGB", (4, 4), (10, 20, 30)), transparency=(10, 20, 30))
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0] * 768)
    for data in (encoded(Image.fromarray(rgba)), encoded(Image.fromarray(rgba).convert("LA"))):
        for picture in (images.read(data) / 255, images.read_float(data)[0].numpy(), decode(data, "x") / 255):
            assert np.array_equal(picture[0, :, 0], [1, 0, 1, 0])
        image, mask = images.read_frames(data)
        assert not image.any() and torch.equal(mask[0, 0], torch.tensor([1.0, 0.0, 1.0, 0.0]))
    for data in (keyed, encoded(palette, transparency=3)):
        assert (images.read(data) == 255).all() and (images.read_float(data) == 1).all()


def test_a_picture_is_turned_as_the_camera_says_even_where_a_text_of_a_png_says_so():
    picture = Image.new("RGB", (6, 2), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    assert images.read(encoded(picture, "JPEG", exif=exif)).shape == (6, 2, 3)
    assert images.read(encoded(picture, exif=exif)).shape == (6, 2, 3)
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf tiff:Orientation="6"/>')
    assert images.read(encoded(picture, pnginfo=text)).shape == images.read_float(encoded(picture, pnginfo=text)).shape[1:] == (6, 2, 3)


def test_many_frames_are_refused_before_the_first_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64 * 20)
    frames = [Image.new("L", (64, 64), 8 * k) for k in range(30)]
    for name in ("a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(images.PictureError, match=f"{name}.*its 30 frames hold more than.*Shorten it"):
            images.read_frames(tmp_path / name)
        assert images.read(tmp_path / name).shape == (64, 64, 3), "one frame alone is no burden"


def test_frames_that_grow_behind_the_header_are_refused(tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (512, 512))])
    monkeypatch.setattr(images, "MAX_PIXELS", 512 * 512)
    with pytest.raises(images.PictureError, match="a.tif"):
        images.read_frames(tmp_path / "a.tif")


def test_frames_with_and_without_transparency_are_one_batch(tmp_path):
    frames = [Image.new("RGBA", (5, 4), (255, 0, 0, alpha)) for alpha in (255, 0)]
    frames[0].convert("RGB").save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    image, mask = images.read_frames(tmp_path / "a.tif")
    assert image.shape == (2, 4, 5, 3) and mask.mean((1, 2)).tolist() == [0, 1]


def test_large_photos_are_reduced_while_they_are_read():
    smooth = Image.fromarray(NOISE[:3, :4]).resize((1600, 1200), Image.Resampling.BICUBIC)
    whole = np.array(smooth)
    for data in (encoded(smooth), encoded(smooth, "JPEG", quality=95)):
        small = images.read(data, side=100)
        assert small.shape == (100, 133, 3) or min(small.shape[:2]) in range(100, 200)
        there = np.array(Image.fromarray(whole).resize(small.shape[1::-1], Image.Resampling.BOX)).astype(int)
        assert np.abs(there - small).mean() < 3
    assert images.read(encoded(smooth), side=2000).shape == (1200, 1600, 3)


def test_a_file_that_is_missing_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no picture .*gone.png"):
        images.read(tmp_path / "gone.png")
    with pytest.raises(images.PictureError, match="it is a folder"):
        images.read(tmp_path)


def test_floats_that_are_no_numbers_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(images.PictureError, match="nan.tif.*no numbers"):
        images.read(tmp_path / "nan.tif")


def test_resizing_is_what_the_tower_sees_and_what_training_paints():
    config = tiny_config().vision
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    x = images.to_float(NOISE)[None].movedim(-1, 1)
    made = images.resize_float(x, (config.image_size,) * 2)
    assert torch.equal((made.clamp(0, 1) - mean) / std, prepare(images.to_float(NOISE)[None], config))
    assert images.resize_float(made, (config.image_size,) * 2) is made
    square = torch.nn.functional.interpolate(x * 255, (16, 16), mode="bicubic", antialias=True, align_corners=False)
    assert torch.allclose(images.resize(NOISE, 16).float(), square[0].movedim(0, -1).round().clamp(0, 255), atol=1)
    assert np.array_equal(images.resize(NOISE, 30, crop=True), NOISE[:, 5:35])


class Frame:
    width, height = 20000, 20000


def test_a_video_of_huge_frames_is_refused():
    with pytest.raises(images.PictureError, match="film.mp4"):
        images.from_video(Frame(), 512, "film.mp4")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_reference_keeps_its_transparency(tmp_path, mode):
    from wegen.wegen_model.images import read_float, read_reference

    whole = Image.new("RGBA", (8, 6), (255, 0, 0, 255))
    whole.putpixel((0, 0), (0, 255, 0, 0))
    path = tmp_path / "a.png"
    if mode == "P":
        palette = Image.new("P", (8, 6), 1)
        palette.putpalette([0, 255, 0, 255, 0, 0])
        palette.putpixel((0, 0), 0)
        palette.save(path, transparency=0)
    else:
        whole.convert(mode).save(path)
    seen = read_reference(path)
    assert seen.shape == (1, 6, 8, 4) and seen[0, 0, 0, 3] == 0 and seen[0, 3, 3, 3] == 1
    whole.convert("RGB").convert("RGBA").save(path)
    assert read_reference(path).shape == (1, 6, 8, 3) and (read_reference(path) == read_float(path)).all()
