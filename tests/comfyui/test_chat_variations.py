"""Several pictures of one answer in the chat panel, both renderers. Skipped as tests/comfyui/test_browser.py is."""

import numpy as np
import pytest
from PIL import Image
from wegen.tests.comfyui.editors import say, talk, transcript
from wegen.tests.comfyui.test_chat_panel import PICTURES, chips, give

pytestmark = pytest.mark.comfyui


def test_variations_stand_side_by_side_and_the_chosen_one_goes_on(page, comfy, shoot):
    """Two pictures of one edit, the rest of both kept; a click chooses, the slider compares, and the next message is about that one."""

    def pixels(file):
        return np.asarray(Image.open(comfy.base / file["type"] / file["subfolder"] / file["filename"]).convert("RGB"))

    node = talk(page)
    several = page.page.get_by_label("Pictures of each answer, side by side").first
    several.select_option("2")
    page.page.get_by_label("Leave what an edit does not touch as it is").first.click()
    assert page.page.evaluate("id => app.graph.getNodeById(id).widgets.find(w => w.name === 'variations').value", node) == 2
    fox = PICTURES / "fox_on_beige.png"
    give(page, "drop", fox)
    chips(page, 1)
    say(page, node, "<image_1> paint the fox blue")
    versions = page.page.locator(".wegen-version:visible")
    assert versions.count() == 2 and versions.first.get_attribute("aria-pressed") == "true"
    (first,) = transcript(page, node)[1]["pictures"]
    shoot("variations")
    page.page.get_by_label("Show version 2").first.click()
    answer = transcript(page, node)[1]
    (second,) = answer["pictures"]
    before = np.asarray(Image.open(fox).convert("RGB"))
    kept = [(pixels(file) == before).all(-1) for file in (first, second)]
    assert all(0.4 < same.mean() < 0.95 for same in kept) and not np.array_equal(pixels(first), pixels(second))
    assert answer["seed"] == answer["first"] + 1
    page.page.locator(".wegen-turn.assistant:visible").first.hover()
    page.page.get_by_label("Compare with the picture before").first.click()
    assert second["filename"] in page.page.locator(".wegen-compare img:visible").first.get_attribute("src")
    page.page.get_by_label("Compare with the picture before").first.click()

    assert page.run() == "success"  # the chosen one alone: nothing is added
    page.page.wait_for_timeout(1000)
    assert versions.count() == 2 and transcript(page, node)[1]["seed"] == answer["seed"]
    assert np.abs(pixels(transcript(page, node)[1]["pictures"][0]).astype(int) - pixels(second)).max() <= 1
    several.select_option("1")
    say(page, node, "make the background yellow")
    turns = transcript(page, node)
    assert len(turns) == 4 and turns[1]["seed"] == answer["seed"] and page.page.locator(".wegen-version:visible").count() == 2
    assert page.errors() == []
