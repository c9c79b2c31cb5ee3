"""What a container says about its frames is obeyed: on films made here with odd clocks, turned and stretched pictures, and damage."""

from fractions import Fraction

import numpy as np
import pytest
from wegen.tests.diic import film
from wegen.wegen_model.data.items import Skips
from wegen.wegen_model.data.record import Unreadable
from wegen.wegen_model.diic.options import Options
from wegen.wegen_model.diic.shots import dense, shots
from wegen.wegen_model.diic.units import Unit, shard_name, units
from wegen.wegen_model.diic.video import frames, picture, probe

av = pytest.importorskip("av", reason='PyAV is missing; pip install "wegen[data]"')
for module in ("scenedetect", "cv2"):
    pytest.importorskip(module)

SMALL = Options(least=32, alike=-1)


def numbered(count=48, size=(160, 120)):
    """Pictures whose grey says which they are: 5 and 5 more for each."""
    return [np.full((size[1], size[0], 3), 5 + 5 * i, np.uint8) for i in range(count)]


def told(path, start=0.0, end=None):
    """Time and number of each frame as it is read."""
    head = probe(path)
    return [(round(t, 3), round((float(picture(f, head, 64).mean()) - 5) / 5)) for t, f in frames(head, start, end)]


def read(path, options=SMALL, unit=None):
    skips, notes = Skips(), {}
    return list(shots(unit or Unit(path, path.name, path.name), options, skips, notes)), skips, notes


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mpeg4"), ("mpg", "mpeg2video"), ("ts", "mpeg2video")]
)
def test_times_are_seconds_since_the_first_frame_in_every_container(tmp_path, kind, codec):
    path = film.record(tmp_path / f"a.{kind}", numbered(), rate=25, codec=codec)
    found = told(path)
    jitter = 0.041 if kind == "mpg" else 1e-3  # a program stream has fewer stamps than frames
    assert [n for _, n in found] == list(range(48)) and np.allclose([t for t, _ in found], [i / 25 for i in range(48)], atol=jitter)
    assert told(path, 1.0, 1.2) == [(t, n) for t, n in found if 1.0 <= t < 1.2] and len(told(path, 1.0, 1.2)) >= 4


@pytest.mark.parametrize("kind", ["mpg", "mp4"])
def test_a_shot_behind_a_cut_has_no_frame_of_the_one_before(tmp_path, kind):
    """An .mpg's clock starts at half a second: counted from 0, the second shot began with a frame of the first."""
    path = film.record(tmp_path / f"a.{kind}", two_scenes(), rate=25, codec="mpeg2video" if kind == "mpg" else "mpeg4")
    found, _, _ = read(path)
    assert [(round(v["start"], 1), round(v["end"], 1)) for _, v, _ in found] == [(0.0, 2.0), (2.0, 4.0)]
    for (_, values, pictures), red in zip(found, (255, 0)):
        assert all(abs(int(p[2, 2, 0]) - red) < 30 for p in pictures.values()) and len(pictures) == 4
        assert all(values["start"] <= t < values["end"] for t in values["times"])


def two_scenes():
    return [
        film.scene(ground, things, i / 25)
        for ground, things in (("white", [("red", 0.1, 0.25)]), ("navy", [("yellow", 0.5, 0.3)]))
        for i in range(50)
    ]


def test_a_clock_that_starts_late_runs_unevenly_or_pauses(tmp_path):
    times = [10 + i * 0.04 if i < 24 else 12.5 + (i - 24) * 0.1 for i in range(48)]
    found = told(film.record(tmp_path / "a.mkv", numbered(), times=times))
    assert [n for _, n in found] == list(range(48))
    assert np.allclose([t for t, _ in found], [t - 10 for t in times], atol=2e-3)


def test_a_clock_that_starts_anew_in_the_middle_goes_on(tmp_path):
    """Two recordings in one stream, as cameras join them: the second one's stamps begin at nothing again."""
    one, two = (film.record(tmp_path / f"{n}.ts", numbered(24), rate=25, codec="mpeg2video") for n in "ab")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    found = told(joined)
    assert [n for _, n in found] == [*range(24), *range(24)]
    steps = np.diff([t for t, _ in found])
    assert np.allclose(steps, 0.04, atol=2e-3)


def test_frames_without_stamps_come_at_their_rate(tmp_path):
    found = told(film.record(tmp_path / "a.m2v", numbered(), rate=25, codec="mpeg2video"))
    assert [n for _, n in found] == list(range(48)) and np.allclose(np.diff([t for t, _ in found]), 0.04, atol=2e-3)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_phones_film_is_upright(tmp_path, turn):
    """The display matrix says how many degrees counter-clockwise a picture is turned before it is shown."""
    upright = np.zeros((64, 128, 3), np.uint8)
    upright[:32, :64] = (255, 0, 0)
    path = film.record(tmp_path / "a.mp4", [np.rot90(upright, -turn // 90)] * 10, turn=turn)
    head = probe(path)
    shown = picture(next(frames(head))[1], head, 128)
    assert (head.width, head.height) == (128, 64) and shown.shape == (64, 128, 3)
    assert shown[4, 4, 0] > 200 and shown[4, -4, 0] < 50 and shown[-4, 4, 0] < 50


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = film.record(tmp_path / "a.mkv", numbered(10, (144, 112)), pixels=Fraction(16, 11))
    head = probe(path)
    assert (head.width, head.height) == (209, 112)
    assert picture(next(frames(head))[1], head, 1000).shape == (112, 209, 3)


def test_interlaced_frames_show_one_moment(tmp_path):
    """Of a bar that jumps between the fields one place is seen, not two combs."""
    woven = np.zeros((128, 160, 3), np.uint8)
    woven[0::2, 20:40] = woven[1::2, 100:120] = 255
    path = film.record(tmp_path / "a.mkv", [woven] * 10, codec="mpeg2video", flags="+ildct+ilme", alternate_scan="1")
    head = probe(path)
    frame = next(frames(head))[1]
    if not frame.interlaced_frame:
        pytest.skip("this build of the encoder marks no frame as interlaced")
    shown = picture(frame, head, 160)
    assert shown.shape == (128, 160, 3)
    assert shown[20:100, 25:35].mean() > 200 and shown[20:100, 105:115].mean() < 60


def test_a_cover_picture_is_not_the_film(tmp_path):
    """Streams whose disposition says attached picture are passed over."""
    plain = film.record(tmp_path / "a.mp4", numbered(12), rate=12)
    covered = tmp_path / "covered.mkv"
    with av.open(str(plain)) as source, av.open(str(covered), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in cover.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 255, np.uint8), format="rgb24")):
            out.mux(packet)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert [n for _, n in told(covered)] == list(range(12))


def test_damaged_packets_cost_themselves_and_are_told(tmp_path):
    path = film.record(tmp_path / "a.avi", [film.scene(*film.SCENES[0], i / 12) for i in range(48)], g="1")
    raw = bytearray(path.read_bytes())
    middle = raw.find(b"00dc", len(raw) // 2)
    size = int.from_bytes(raw[middle + 4 : middle + 8], "little")
    raw[middle + 8 : middle + 8 + size] = bytes(size)
    path.write_bytes(raw)
    head = probe(path)
    assert 40 <= sum(1 for _ in frames(head)) <= 48
    cut = tmp_path / "cut.mkv"
    whole = film.record(tmp_path / "whole.mkv", [film.scene(*film.SCENES[0], i / 12) for i in range(48)])
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found, _, _ = read(cut)
    assert len(found) == 1 and found[0][1]["end"] < 3


@pytest.mark.parametrize("data", [b"", b"no video at all", b"<html>" * 1000])
def test_what_is_no_video_is_told_in_words(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(Unreadable, match="not a video that can be read"):
        probe(tmp_path / "a.mp4")


def test_a_film_in_pieces_gives_each_frame_once(tmp_path):
    path = film.record(tmp_path / "a.mp4", numbered(50, (160, 120)) * 5, rate=10, g="12")
    found = units(tmp_path, 10)
    assert [(u.name, u.start, u.end) for u in found] == [("a.mp4@0000", 0.0, 10.0), ("a.mp4@0001", 10.0, None)]
    pieces = [told(path, u.start, u.end) for u in found]
    assert pieces[0] + pieces[1] == told(path) and len(pieces[0]) == 100
    assert [round(t) for t, _ in dense(found[1], 12, 16, Options(every=1.0, least=32))] == [12, 13, 14, 15]


def test_a_film_whose_clock_may_start_anew_is_one_piece(tmp_path):
    film.record(tmp_path / "a.ts", numbered(50) * 5, rate=25, codec="mpeg2video")
    assert len(units(tmp_path, 10)) == 1


def test_files_of_one_name_stay_apart(tmp_path):
    for i, folder in enumerate(("clip1", "clip2", "clip1__video.mp4"), 1):
        film.record(tmp_path / folder / "video.mp4", numbered(5 + i))
    found = units(tmp_path, 600)
    assert len({u.name for u in found}) == 3 and [u.film for u in found] == [
        "clip1/video.mp4",
        "clip1__video.mp4/video.mp4",
        "clip2/video.mp4",
    ]
    assert shard_name("clip1/video.mp4") == shard_name("clip1/video.mp4") != shard_name("clip1__video.mp4")
    assert shard_name("video.mp4") == "video.mp4"
