"""What is left out of a film and why, and the camera's motion told from that of things: on pictures and films made here."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from wegen.tests.diic import film
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.data.items import Skips
from wegen.wegen_model.diic import filters
from wegen.wegen_model.diic.change import camera, changed, moves
from wegen.wegen_model.diic.motion import Motion, grey, motion
from wegen.wegen_model.diic.options import Options
from wegen.wegen_model.diic.shots import shots
from wegen.wegen_model.diic.units import Unit

for module in ("av", "scenedetect", "cv2"):
    pytest.importorskip(module, reason=f'{module} is missing; pip install "wegen[data]"')

PLAIN = film.ground(1)


def with_thing(picture, x, y, name="fox", side=110):
    """A thing of open art pasted on a picture."""
    thing = film.sprite(name)
    thing = thing.resize((round(thing.width * side / max(thing.size)), round(thing.height * side / max(thing.size))))
    image = Image.fromarray(picture)
    image.paste(thing, (round(x), round(y)), thing)
    return np.array(image)


def between(a, b):
    return motion(grey(a), grey(b))


def test_a_pan_is_the_cameras_and_a_thing_that_moves_meanwhile_is_not():
    still = between(film.seen(PLAIN, 300), film.seen(PLAIN, 300))
    assert still == Motion(0.0)
    pan = between(film.seen(PLAIN, 300), film.seen(PLAIN, 336))
    assert (
        pan.subject < 0.02
        and abs(pan.right + 36 / 480) < 0.01
        and abs(pan.zoom - 1) < 0.02
        and camera(pan) == "the camera pans to the right"
    )
    tilt = between(film.seen(PLAIN, 300, 120), film.seen(PLAIN, 300, 96))
    assert tilt.subject < 0.02 and abs(tilt.down - 24 / 320) < 0.01 and camera(tilt) == "the camera tilts up"
    both = between(with_thing(film.seen(PLAIN, 300), 60, 90), with_thing(film.seen(PLAIN, 336), 180, 90))
    assert 0.05 < both.subject < 0.3 and abs(both.right + 36 / 480) < 0.01
    alone = between(with_thing(film.seen(PLAIN, 300), 60, 90), with_thing(film.seen(PLAIN, 300), 180, 90))
    assert alone.subject > 0.04 and alone.right == 0 and camera(alone) == ""


def test_a_fast_pan_over_a_busy_ground_is_the_cameras():
    rng = np.random.default_rng(0)
    busy = np.array(Image.fromarray(rng.integers(40, 215, (45, 120, 3), np.uint8)).resize((2400, 900), Image.Resampling.BICUBIC))
    found = between(film.seen(busy, 300, 90, 1280, 720), film.seen(busy, 412, 90, 1280, 720))
    assert found.subject < 0.02 and abs(found.right + 112 / 1280) < 0.01


def test_a_zoom_is_the_cameras():
    a = film.seen(PLAIN, 300)
    near = np.array(Image.fromarray(a).crop((24, 16, 456, 304)).resize((480, 320), Image.Resampling.BICUBIC))
    found = between(a, near)
    assert abs(found.zoom - 480 / 432) < 0.02 and found.subject < 0.05 and camera(found) == "the camera comes nearer"


def test_on_a_plain_ground_what_moves_is_the_thing():
    a, b = (film.scene(*film.SCENES[1], t) for t in (0.5, 1.0))
    found = between(a, b)
    assert found.subject > 0.03 and found.right == found.down == 0 and found.zoom == 1


def test_a_flash_is_no_motion():
    a = film.seen(PLAIN, 300)
    assert between(a, np.clip(a.astype(int) + 50, 0, 255).astype(np.uint8)).subject < 0.02


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 6])
def test_blur_is_measured_in_pixels_whatever_the_contrast(radius):
    sharp = Image.fromarray(with_thing(film.seen(PLAIN, 300), 180, 90)).resize((960, 640), Image.Resampling.BICUBIC)
    soft = np.array(sharp.filter(ImageFilter.GaussianBlur(radius * 960 / 256)))
    for contrast in (1.0, 0.3):
        found = filters.blur((soft * contrast).astype(np.uint8))
        assert (found > Options().blur) == (radius >= 3), found
        assert found < 1.6 or radius


def test_text_over_a_picture_is_seen_and_a_picture_without_is_not():
    plain = with_thing(film.seen(PLAIN, 300), 180, 90)
    lines = film.caption(plain, ["Subtitles of this film run here,", "in two lines that cover its foot"])
    assert filters.text_share(plain) < 0.005 and filters.text_share(lines) > Options().text
    assert all(b.y > 0.7 for b in filters.text_lines(lines))
    for name in film.ART:
        assert filters.text_share(film.art_scene("white", [(name, 0.4, 0.2)], 1.0)) == 0


def test_fingerprints_tell_copies_from_other_pictures():
    a = with_thing(film.seen(PLAIN, 300), 180, 90)
    copy = np.array(Image.fromarray(a).resize((300, 200)).resize((480, 320)))
    other = with_thing(film.seen(film.ground(2), 300), 60, 90)
    seen = filters.Seen(3)
    seen.add([filters.fingerprint(a)])
    assert seen.had(filters.fingerprint(copy)) and not seen.had(filters.fingerprint(other))
    assert seen.had(filters.fingerprint(a) ^ 0b10000000000000100000000000000001) and not seen.had(filters.fingerprint(a) ^ 0b1111 << 30)
    nothing = filters.Seen(-1)
    nothing.add([1])
    assert not nothing.had(1)


def cut(tmp_path, scenes, options, rate=12, name="a.mp4"):
    """Shots of a film of scenes, each a function of the second that gives a picture, of two seconds."""
    pictures = [scene(i / rate) for scene in scenes for i in range(2 * rate)]
    path = film.record(tmp_path / name, pictures, rate)
    skips, notes = Skips(), {}
    return list(shots(Unit(path, path.name, path.name), options, skips, notes)), skips, notes


def moving(seed, name="fox", over=None):
    plain = film.ground(seed)

    def scene(t):
        p = with_thing(film.seen(plain, 300), 30 + 140 * t, 60 + 20 * t, name)
        return p if over is None else over(p)

    return scene


def test_each_kind_of_unfit_frame_is_left_out_counted_and_named(tmp_path):
    o = Options(alike=3)
    blurred = moving(4, over=lambda p: np.array(Image.fromarray(p).filter(ImageFilter.GaussianBlur(8))))
    titled = moving(5, over=lambda p: film.caption(p, ["Subtitles of this film run here,", "in two lines that cover its foot"]))
    panned = film.ground(6)
    scenes = [moving(3), blurred, titled, lambda t: film.seen(panned, 100 + 150 * t), moving(3), moving(7, "cat")]
    found, skips, notes = cut(tmp_path, scenes, o)
    assert [round(v["start"]) for _, v, _ in found] == [0, 10]
    reasons = skips.reasons
    assert reasons["a frame is blurred"] >= 6 and reasons["a frame is covered with text"] >= 6 and reasons["a frame was there before"] >= 6
    assert reasons["nothing moves in the shot but perhaps the camera"] == 1 and reasons["no frame of the shot is fit"] >= 2
    assert any("a.mp4 at 0:02" in name for name in skips.names["a frame is blurred"])
    assert notes["watermark"] is None and round(notes["seconds"]) == 12
    with pytest.raises(ValueError, match=r"480 x 320 pixels; --least asks for 400"):
        cut(tmp_path, scenes[:1], Options(least=400))


def test_what_stands_in_every_shot_is_a_watermark(tmp_path):
    def logo(p):
        return with_thing(p, 400, 20, "rocket", 60)

    scenes = [moving(seed, name, logo) for seed, name in ((11, "fox"), (12, "cat"), (13, "panda"), (14, "cactus"))]
    _, _, notes = cut(tmp_path, scenes, Options())
    x, y, w, h = notes["watermark"]
    assert x > 0.75 and y < 0.15 and x + w > 0.85 and 0.1 < h < 0.4


A, B = Box(0.1, 0.4, 0.2, 0.2), Box(0.5, 0.4, 0.2, 0.2)


@pytest.mark.parametrize(
    ("a", "b", "moved", "said"),
    [
        (A, B, Motion(0.1), "moves to the right"),
        (B, A, Motion(0.1), "moves to the left"),
        (A, Box(0.1, 0.1, 0.2, 0.2), Motion(0.1), "moves up"),
        (A, A, Motion(0.1), "stays in its place"),
        (A, Box(0.0, 0.3, 0.4, 0.4), Motion(0.1), "becomes larger"),
        (A, Box(0.3, 0.4, 0.2, 0.2), Motion(0.0, right=0.2), "stays in its place"),  # the camera panned to the left
        (Box(0.4, 0.4, 0.2, 0.2), Box(0.3, 0.3, 0.4, 0.4), Motion(0.0, zoom=2.0), "stays in its place"),
    ],
)
def test_a_things_own_motion_in_words(a, b, moved, said):
    assert moves(a, b, moved) == said


def test_the_second_turn_says_what_changed():
    fox = {"phrase": "a red fox", "boxes": [A, B]}
    cat, dog = {"phrase": "a cat", "boxes": [None, A]}, {"phrase": "The dog", "boxes": [A, None]}
    text, boxes = changed([fox], 0, 1, Motion(0.2, right=-0.1), [cat], [dog], ["a red fox on a plain", "a red fox on a plain"])
    assert (
        text
        == "The red fox <bbox_1> moves to the right, a cat <bbox_2> comes into view, the dog leaves the view, the camera pans to the right."
    )
    assert boxes == [B, A]
    text, _ = changed([fox], 0, 1, Motion(0.2), [], [], ["a red fox sits on a plain", "a red fox jumps over a plain"])
    assert text == "The red fox <bbox_1> moves to the right. Now: a red fox jumps over a plain"
