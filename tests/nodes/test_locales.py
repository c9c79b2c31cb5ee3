"""The locale files: English is what the nodes say, Chinese is complete, and both are text that the frontend's i18n shows as it is."""

import re

import pytest
from wegen.tests import locales

TAGS = re.compile(r"<(?:image|bbox)_\d>|%\w+%|\b8x8\b")


def leaves(table: dict, path: tuple = ()) -> dict[tuple, str]:
    out = {}
    for key, value in table.items():
        out |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return out


def test_english_is_what_the_nodes_say():
    assert locales.read("en") == locales.english(), "run: python -m wegen.tests.locales"


def test_chinese_is_complete():
    english, chinese = leaves(locales.english()), leaves(locales.read("zh"))
    assert set(english) <= set(chinese)
    extra = set(chinese) - set(english)
    assert all(key[-1] == "tooltip" for key in extra), extra  # English leaves out what comes from the server
    untranslated = [key for key, text in chinese.items() if key[-1] != "name" and not re.search(r"[\u4e00-\u9fff]", text)]
    assert untranslated == []


def test_tags_are_the_same_in_both():
    chinese = leaves(locales.read("zh"))
    for key, text in leaves(locales.english()).items():
        assert set(TAGS.findall(text)) == set(TAGS.findall(chinese[key])), key


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_signs_of_the_message_syntax(language):
    """vue-i18n reads {…}, @ and | in a message as placeholders, links and plurals."""
    assert {key: text for key, text in leaves(locales.read(language)).items() if re.search(r"[{}@|]", text)} == {}
