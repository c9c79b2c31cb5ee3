"""The one reader of pictures: nodes, headless Load Image, command line, chat, training folders, shards, datasets and video frames.

    read(source)         (h,w,3) uint8 of the first frame, transparency laid over white: training, datasets, shards
    read_float(source)   the same as IMAGE (1,h,w,3) float in 0..1: chat, command line
    read_reference(source)  (1,h,w,3), or (1,h,w,4) where the picture has transparency: references of a chat
    read_frames(source)  IMAGE (k,h,w,3) float in 0..1 and MASK (k,h,w) of every frame, as ComfyUI's Load Image gives them
    check(source)        header and checksums only, for lists of many files

Whatever is wrong with a picture is a `PictureError` that names it and says what to do: Pillow raises a dozen classes, so none is listed.
Pictures are turned as their EXIF says. 16-bit grey and float pictures keep their range (Pillow's own conversion clips them to white).
A PNG's colour profile and texts are left out before Pillow sees it: no pixel depends on them, and Pillow refuses large ones; Pillow's
global settings are not touched. `resize` and `resize_float` are the two resizings that training and inference use.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MAX_PIXELS = 178_956_970  # pixels x frames: where Pillow, and so ComfyUI, refuses a picture; 2 GiB of float32 (h,w,3)
MAX_FRAMES = 2000  # of an animation: one has to be decoded to know the next
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTATION = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that say how a picture is turned
TEXT_BYTES = 1 << 20  # a text longer than this says more than how a picture is turned (Pillow's own limit)


class PictureError(ValueError):
    """A picture that cannot be read. `name`: which; `reason`: why, in words; `remedy`: what to do."""

    def __init__(self, name: str, reason: str, remedy: str = "Save it again as PNG or JPEG."):
        super().__init__(f"{name} cannot be read: {reason}. {remedy}")
        self.name, self.reason, self.remedy = name, reason, remedy


def read(source: str | Path | bytes, name: str = "", side: int = 0) -> np.ndarray:
    """The first frame of a picture.

    Args:
        source: a file, or a picture's bytes. name: what errors call it (default: the path).
        side: when given, large pictures may be reduced while they are decoded; the shorter side stays at least this long.
    Returns:
        (h,w,3) uint8, upright, transparency laid over white.
    Raises:
        FileNotFoundError: there is no such file.
        PictureError: no picture, cut off, or past MAX_PIXELS.
    """
    picture = _first(source, name, side)
    return picture if picture.dtype == np.uint8 else (picture * 255).round().astype(np.uint8)


def read_float(source: str | Path | bytes, name: str = "") -> Tensor:
    """`read` as IMAGE (1,h,w,3) float32 in 0..1; 16-bit grey and floats without rounding them to 8 bits. Errors: as `read`."""
    import torch

    picture = _first(source, name)
    return to_float(picture)[None] if picture.dtype == np.uint8 else torch.from_numpy(picture)[None]


def read_reference(source: str | Path | bytes, name: str = "") -> Tensor:
    """`read_float`, but of a picture with transparency (1,h,w,4): its colours as stored, and its opacity. Errors: as `read`."""
    import torch

    picture = _first(source, name, opacity=True)
    return to_float(picture)[None] if picture.dtype == np.uint8 else torch.from_numpy(picture)[None]


def read_frames(source: str | Path | bytes, name: str = "") -> tuple[Tensor, Tensor]:
    """Every frame of a picture, as ComfyUI's Load Image reads it; of an MPO (a camera's stereo pair) the first.

    Returns:
        IMAGE (k,h,w,3) float32 in 0..1 without alpha, and MASK (k,h,w), 1 where a frame is transparent. Without any transparency
        the mask is ComfyUI's blank one, (k,64,64). Frames of another size than the first are left out.
    Raises:
        FileNotFoundError, PictureError: as `read`.
    """
    import torch
    from PIL import ImageOps, ImageSequence

    images: list[np.ndarray] = []
    masks: list[np.ndarray | None] = []
    with _opened(source, name, frames=True) as file:
        pixels = 0
        for frame in ImageSequence.Iterator(file):
            pixels += frame.size[0] * frame.size[1]
            _check_size(pixels, _name(source, name))  # frames of a TIFF may grow
            image, mask = _image_and_mask(ImageOps.exif_transpose(frame))
            if not images or image.shape == images[0].shape:
                images.append(image)
                masks.append(mask)
            if file.format == "MPO":
                break
    blank = np.zeros(images[0].shape[:2] if any(m is not None for m in masks) else (64, 64), np.float32)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack([blank if m is None else m for m in masks]))


def check(source: str | Path | bytes, name: str = "") -> None:
    """Look at a picture's header and checksums without decoding it. FileNotFoundError, PictureError: as `read`."""
    with _opened(source, name) as image:
        image.verify()


def to_float(picture: np.ndarray) -> Tensor:
    """uint8 (…,h,w,3) to float32 in 0..1, of the same shape."""
    import torch

    return torch.from_numpy(np.array(picture)).float() / 255


def from_video(frame: Any, side: int, name: str, aspect: float = 1.0) -> np.ndarray:
    """A frame that PyAV decoded, as a player shows it: turned as its display matrix says, of an interlaced one the first field.

    Args:
        side: pixels of the longer side, at most. aspect: width of a stored pixel by its height.
    Returns:
        (h,w,3) uint8.
    Raises:
        PictureError: past MAX_PIXELS.
    """
    _check_size(frame.width * frame.height, name)
    wide, high = frame.width * max(aspect, 1.0), frame.height * max(1 / aspect, 1.0)
    scale = min(1.0, side / max(wide, high))
    size = {"width": max(1, round(wide * scale)), "height": max(1, round(high * scale))}
    if frame.interlaced_frame:
        picture = _lines(frame.to_ndarray(format="rgb24")[::2], **size)
    elif (size["width"], size["height"]) == (frame.width, frame.height):
        picture = frame.to_ndarray(format="rgb24")
    else:
        picture = frame.to_ndarray(format="rgb24", **size)
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90))) if frame.rotation else picture


def _lines(field: np.ndarray, width: int, height: int) -> np.ndarray:
    """A field, half of a frame's lines, at the size of the picture."""
    from PIL import Image

    return np.array(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC))


def resize(picture: np.ndarray, size: int, crop: bool = False) -> Tensor:
    """(h,w,3) uint8 to (size,size,3) uint8: squashed to the square as in the public stages 2 and 3, or its middle cut out (stage 1).
    Bicubic with antialiasing."""
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float()
    if crop:
        h, w = x.shape[-2:]
        side = min(h, w)
        x = x[..., (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return x[0].movedim(0, -1).round().clamp(0, 255).byte()


def resize_float(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(b,c,h,w) float to `size` (rows, columns): bilinear with antialiasing, as the tower sees pictures. That size already: untouched."""
    from torch.nn import functional as F

    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def png_chunks(file: Any) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and raw bytes of each chunk of a PNG opened behind its signature; what follows a cut-off one is its raw bytes."""
    start, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(start)
    while head := file.read(8):
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        body = file.read(min(length + 4, end - file.tell()))  # a damaged length would be allocated
        yield kind, body[:length], head + body
        if len(body) < length + 4:
            return


def png_text(kind: bytes, content: bytes, most: int) -> tuple[bytes, str | None]:
    """Keyword and text of a PNG's text chunk; the text is None when it is longer than `most` bytes or damaged."""
    keyword, _, text = content.partition(b"\0")
    packed, encoding = kind == b"zTXt", "latin-1"
    if packed:
        text = text[1:]
    elif kind == b"iTXt":
        packed, encoding = text[:1] == b"\1", "utf-8"
        text = text[2:].split(b"\0", 2)[-1]
    if packed:
        unpack = zlib.decompressobj()
        try:
            text = unpack.decompress(text, most + 1)
        except zlib.error:
            return keyword, None
    return keyword, text.decode(encoding, "replace") if len(text) <= most else None


# -- inside -----------------------------------------------------------------------------------------------------------------------


def _name(source: str | Path | bytes, name: str) -> str:
    return name or ("picture" if isinstance(source, bytes) else str(source))


def _check_size(pixels: int, name: str, frames: int = 1) -> None:
    """PictureError for a picture, or for several frames together, of more than MAX_PIXELS."""
    if pixels > MAX_PIXELS:
        what, remedy = (f"its {frames} frames hold", "Shorten it, or make it smaller.") if frames > 1 else ("it holds", "Make it smaller.")
        raise PictureError(name, f"{what} more than {MAX_PIXELS / 1e6:.0f} million pixels, the most that is read", remedy)


@contextlib.contextmanager
def _opened(source: str | Path | bytes, name: str, frames: bool = False) -> Iterator[Image.Image]:
    """A picture's header, its size checked (of all `frames`, or of one); whatever goes wrong meanwhile is a PictureError."""
    from PIL import Image, UnidentifiedImageError

    name = _name(source, name)
    try:
        with contextlib.ExitStack() as stack:
            data: Any = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(_without_texts(data)))
            _check_size(image.size[0] * image.size[1], name)
            count = _frames(image, name) if frames else 1
            _check_size(image.size[0] * image.size[1] * count, name, count)
            yield image
    except PictureError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no picture {name}.") from None
    except IsADirectoryError:
        raise PictureError(name, "it is a folder", "Name a picture in it.") from None
    except UnidentifiedImageError:  # whose text is an address, another for each picture
        raise PictureError(name, "it is not a picture (its bytes are of no known format)") from None
    except Image.DecompressionBombError:
        _check_size(MAX_PIXELS + 1, name)
    except Exception as error:  # noqa: BLE001 damaged files raise whatever Pillow's decoders stumble over
        raise PictureError(name, f"it is damaged, or not a picture that can be read ({error or type(error).__name__})") from error


def _frames(image: Image.Image, name: str) -> int:
    """How many frames are to be read, 1 of an MPO; none is decoded. PictureError past MAX_FRAMES."""
    if image.format == "MPO":
        return 1
    count = 0
    if image.format == "TIFF":  # where Pillow's count takes the square of their number
        with contextlib.suppress(EOFError):
            for count in range(MAX_FRAMES + 2):
                image.seek(count)
        image.seek(0)
    elif image.format != "GIF" or (count := _gif_frames(getattr(image, "fp"))) <= MAX_FRAMES:
        count = getattr(image, "n_frames", 1)
    if count > MAX_FRAMES:
        raise PictureError(name, f"it has more than {MAX_FRAMES} frames, the most that is read", "Shorten it.")
    return count


def _gif_frames(file: Any) -> int:
    """Frames of an open GIF, counted by its blocks up to MAX_FRAMES + 1: Pillow's own count takes a minute for some 10 MB."""

    def table(flags: int, extra: int = 0) -> None:  # pass over a colour table
        file.seek((3 << (flags & 7) + 1 if flags & 128 else 0) + extra, 1)

    here, count = file.tell(), 0
    file.seek(10)
    table(file.read(3)[0])
    while count <= MAX_FRAMES and (kind := file.read(1)) not in (b"", b";"):
        if kind not in (b"!", b","):
            continue
        count += kind == b","
        table(file.read(9).ljust(9, b"\0")[8] if kind == b"," else 0, extra=1)
        while (length := file.read(1)) > b"\0":  # data, up to an empty block
            file.seek(length[0], 1)
    file.seek(here)
    return count


def _without_texts(file: Any) -> Any:
    """The file; a PNG without its colour profile and without its texts, but for those that say how it is turned."""
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        file.seek(0)
        return file
    out = io.BytesIO()
    out.write(PNG_SIGNATURE)
    for kind, content, raw in png_chunks(file):
        if kind in PNG_TEXTS:
            keyword, text = png_text(kind, content, TEXT_BYTES)
            if keyword not in ORIENTATION or text is None:
                continue
        if kind != b"iCCP":
            out.write(raw)
    out.seek(0)
    return out


def _first(source: str | Path | bytes, name: str, side: int = 0, opacity: bool = False) -> np.ndarray:
    """(h,w,3) of the first frame over white: uint8, or float32 in 0..1 of a deep picture. With `opacity`, (h,w,4) of a transparent one."""
    from PIL import Image, ImageOps

    with _opened(source, name) as image:
        if side:
            image.draft("RGB", (side, side))  # JPEG: fewer pixels are decoded in the first place
        upright = ImageOps.exif_transpose(image)
        if _is_deep(upright):
            return np.repeat(_deep_grey(upright)[..., None], 3, axis=-1)
        if _has_alpha(upright) or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            if opacity and np.asarray(upright)[..., 3].min() < 255:
                return np.array(upright)
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        upright = upright.convert("RGB")
        factor = min(upright.size) // side if side else 1
        return np.array(upright.reduce(factor) if factor > 1 else upright)


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits a pixel: 16-bit or 32-bit grey, or float."""
    return image.mode.startswith("I") or image.mode == "F"


def _deep_grey(image: Image.Image) -> np.ndarray:
    """(h,w) float32 in 0..1 of a deep picture: 16 bits are 0..65535, floats are 0..1. ValueError for floats that are no numbers."""
    grey = np.asarray(image).astype(np.float32) / (1.0 if image.mode == "F" else 65535.0)
    if np.isnan(grey).any():
        raise ValueError("some of its values are no numbers (NaN)")
    return grey.clip(0, 1)


def _has_alpha(image: Image.Image) -> bool:
    return bool({"A", "a"} & set(image.getbands())) or (
        image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
    )


def _image_and_mask(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(h,w,3) float32 in 0..1 without alpha, and (h,w) 1 where it is transparent, None without transparency (ComfyUI's rules)."""
    if _is_deep(image):
        pixels = np.repeat(_deep_grey(image)[..., None], 3, axis=-1)
    else:
        pixels = np.asarray(image.convert("RGB")).astype(np.float32) / 255.0
    if "A" not in image.getbands() and not (image.mode == "P" and "transparency" in image.info):
        return pixels, None
    alpha = np.asarray(image.convert("RGBA").getchannel("A")).astype(np.float32) / 255.0
    return pixels, 1.0 - alpha
