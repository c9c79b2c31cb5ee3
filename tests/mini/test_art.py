"""The miniature's art: packages, hashes, caches and their errors. No network."""

import errno
import hashlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from wegen.wegen_model.mini.world import art as art_module
from wegen.wegen_model.mini.world import art_download
from wegen.wegen_model.mini.world.art import ArtError, cache_path, load_art
from wegen.wegen_model.mini.world.concepts import CONCEPTS, STYLES
from wegen.wegen_model.mini.world.scenes import canonical, mask, render


def test_another_package_is_refused_with_both_hashes(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nprintf 'something else' > art.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ArtError) as error:
        load_art(cache=tmp_path / "cache")
    found = hashlib.sha256(b"something else").hexdigest()
    for part in ("@iconify-json/noto@1.2.9", STYLES["noto"].sha256, found):
        assert part in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_missing_npm_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtError, match="npm was not found.*Node.js"):
        load_art(cache=tmp_path)


def test_a_failing_npm_is_quoted(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\necho 'npm error network getaddrinfo ENOTFOUND' >&2\necho 'npm error A complete log of this run is in x' >&2\nexit 1\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ArtError, match="could not fetch @iconify-json/noto@1.2.9: npm error network getaddrinfo ENOTFOUND$"):
        load_art(cache=tmp_path)


def package(*_):
    body = '<rect x="2" y="2" width="12" height="12" fill="#0a0"/>'
    icons = {c.name: {"body": body} for c in CONCEPTS}
    return {
        "icons.json": json.dumps({"width": 16, "height": 16, "icons": icons}).encode(),
        "chars.json": json.dumps({c.codepoint: c.name for c in CONCEPTS}).encode(),
    }


def test_missing_resvg_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(art_download, "members", package)
    with pytest.raises(ArtError, match="pip install resvg-py"):
        load_art(["noto"], cache=tmp_path)


def test_drawings_that_are_not_svg_are_read_by_code_point(monkeypatch, tmp_path):
    data = io.BytesIO()
    Image.new("RGBA", (40, 20), (0, 0, 200, 255)).save(data, "WEBP", lossless=True)
    monkeypatch.setattr(
        art_download,
        "members",
        lambda style: {
            "assets/1f431.webp": data.getvalue(),
            "assets/2b50-fe0f.webp": data.getvalue(),
            "assets/1f1e6.webp": b"not wanted",
            "README.md": b"",
        },
    )
    art = load_art(["3d"], cache=tmp_path)
    assert sorted(art.keys()) == [("cat", "3d"), ("star", "3d")]
    sprite = art.sprite("cat", "3d")
    assert sprite.shape == (160, 160, 4) and tuple(sprite[80, 80]) == (0, 0, 200, 255) and sprite[5, 80, 3] == 0


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"not a zip" * 99])
def test_a_damaged_cache_is_made_again(monkeypatch, tmp_path, damage):
    pytest.importorskip("resvg_py")
    monkeypatch.setattr(art_download, "members", package)
    load_art(["noto"], cache=tmp_path)
    path = cache_path("noto", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # no temporary file is left
    path.write_bytes(damage(path.read_bytes()))
    sprite = load_art(["noto"], cache=tmp_path).sprite("cat")
    assert sprite.shape == (160, 160, 4) and tuple(sprite[80, 80]) == (0, 170, 0, 255) and sprite[0, 0, 3] == 0
    monkeypatch.setattr(art_download, "members", None)  # from here on only the cache can answer
    assert (load_art(["noto"], cache=tmp_path).sprite("cat") == sprite).all()


def test_a_full_disk_is_said_and_leaves_nothing(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(art_module, "draw", lambda *_: {c.name: np.zeros((160, 160, 4), np.uint8) for c in CONCEPTS})
    monkeypatch.setattr(art_module.np, "savez_compressed", full)
    with pytest.raises(ArtError, match="disk is full.*WEGEN_CACHE"):
        load_art(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_cache_is_not_fetched_when_told_so(tmp_path):
    with pytest.raises(ArtError, match="fetch=True"):
        load_art(cache=tmp_path, fetch=False)
    with pytest.raises(ArtError, match="no style 'crayon'.*noto"):
        load_art(["crayon"], cache=tmp_path)


def test_the_real_art_is_opaque_things_that_differ():
    if not cache_path("noto").exists():
        pytest.skip(f"the art is not drawn yet ({cache_path('noto')}): load_art() makes it")
    art = load_art(["noto"], fetch=False)
    small = {c.name: render(canonical(c.name, "gray"), art, 32).astype(int) for c in CONCEPTS}
    for name in small:
        assert 0.15 < (mask(canonical(name, "gray"), 0, art) > 127).mean() < 0.6, name
        assert min(np.abs(small[name] - small[other]).mean() for other in small if other != name) > 8, name
