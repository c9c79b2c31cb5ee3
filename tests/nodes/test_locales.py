"""The locale files: English is what the nodes say, each other language is complete, and all are text that the frontend's i18n shows as it is."""

import re

import pytest
from wegen.tests import locales

LANGUAGES = sorted(path.parent.name for path in locales.LOCALES.glob("*/nodeDefs.json"))
TRANSLATIONS = [language for language in LANGUAGES if language != "en"]
SCRIPTS = {"zh": r"[\u4e00-\u9fff]"}  # a letter that a translated text must have
TAGS = re.compile(r"<(?:image|bbox)_\d>|%\w+%|\b8x8\b")


def leaves(table: dict, path: tuple = ()) -> dict[tuple, str]:
    out = {}
    for key, value in table.items():
        out |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return out


def test_english_is_what_the_nodes_say():
    assert locales.read("en") == locales.english(), "run: python -m wegen.tests.locales"


def test_there_are_the_languages_that_ship():
    assert {"en", "zh"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_is_complete(language):
    english, translated = leaves(locales.english()), leaves(locales.read(language))
    assert set(english) <= set(translated)
    extra = set(translated) - set(english)
    assert all(key[-1] == "tooltip" for key in extra), extra  # English leaves out what comes from the server
    script = SCRIPTS.get(language)
    left = [k for k, text in translated.items() if k[-1] != "name" and (text == english.get(k) or script and not re.search(script, text))]
    assert left == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_tags_are_the_same_in_a_translation(language):
    translated = leaves(locales.read(language))
    for key, text in leaves(locales.english()).items():
        assert set(TAGS.findall(text)) == set(TAGS.findall(translated[key])), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_signs_of_the_message_syntax(language):
    """vue-i18n reads {…}, @ and | in a message as placeholders, links and plurals."""
    assert {key: text for key, text in leaves(locales.read(language)).items() if re.search(r"[{}@|]", text)} == {}
