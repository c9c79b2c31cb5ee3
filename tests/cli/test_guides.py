"""Every command that the guides print is one that the program takes: subcommands, options, settings, launch files. None is run.

A line of a code block must be whole; `wegen …` within a sentence may leave out what is required.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from wegen.__main__ import main
from wegen.wegen_model.cli.main import _parser
from wegen.wegen_model.cli.train import CONFIGS, changes
from wegen.wegen_model.train.presets import PRESETS, settings
from wegen.wegen_model.train.settings import STAGES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "wegen_model/mini/README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("js/docs/*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.M)
INLINE = re.compile(r"`([^`]+)`")
ANOTHER_PROGRAMS = {"--preview-method", "--url_col"}  # ComfyUI's, img2dataset's


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def parser(whole: bool = True) -> argparse.ArgumentParser:
    """The real one; it raises instead of leaving, takes no abbreviations, and requires nothing, not even values, unless `whole`."""
    made = _parser()
    for p in parsers(made):

        def refuse(message: str, p=p):
            raise ValueError(f"{p.prog}: {message}")

        p.error, p.allow_abbrev = refuse, False
        for action in p._actions:
            if not whole:
                action.required = False
                action.nargs = "?" if action.option_strings and action.nargs is None else action.nargs
    return made


def check(words: list[str], whole: bool = True) -> argparse.Namespace:
    """Parse the words behind `wegen`. ValueError says what the program would refuse."""
    args = parser(whole).parse_args(words)
    if args.command == "train" and args.what in STAGES and whole:
        settings(args.preset, args.what, changes(args.set))
    if args.command == "train" and args.what == "configs" and args.name and not (CONFIGS / f"{args.name}.yaml").is_file():
        raise ValueError(f"wegen train configs: there is no {args.name}")
    return args


def check_launch(words: list[str]) -> None:
    """`accelerate launch …` by accelerate's own parser, and ours behind the module."""
    launch = pytest.importorskip("accelerate.commands.launch", reason="accelerate starts the processes").launch_command_parser()
    args = launch.parse_args(words)
    assert args.module and args.training_script == "wegen.wegen_model", words
    assert Path(args.config_file).is_file(), args.config_file
    check(args.training_script_args)


def check_line(line: str) -> None:
    """A line of a shell block with its variables put in."""
    words = shlex.split(line, comments=True)
    check_launch(words[2:]) if words[0] == "accelerate" else check(words[1:])


def shell(block: str) -> Iterator[str]:
    """The lines of a block, continued ones joined, with the values of its variables in place of their names."""
    known: dict[str, str] = {}
    for line in filter(None, map(str.strip, re.sub(r"\\\n\s*", "", block).splitlines())):
        line = re.sub(r"\$([A-Z]+)", lambda m: known.get(m[1], "0"), line)
        if printed := re.search(r"\$\((wegen train configs (\w+))\)", line):
            yield printed[1]
            line = line.replace(printed[0], str(CONFIGS / f"{printed[2]}.yaml"))
        if given := re.fullmatch(r'([A-Z]+)=("?)(.*)\2', line):
            known[given[1]] = given[3]
        else:
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_printed_commands_are_understood(page):
    text, wrong = page.read_text(encoding="utf-8"), []
    options = {option for p in parsers(parser()) for option in p._option_string_actions} | ANOTHER_PROGRAMS

    def attempt(what: str, function, *args) -> None:
        try:
            function(*args)
        except ValueError as error:
            wrong.append(f"{what}\n    {error}")

    for block in (*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))):
        for line in shell(block):
            if line.startswith(("wegen ", "accelerate launch ")):
                attempt(line, check_line, line)
    for code in INLINE.findall(INDENTED.sub("", FENCED.sub("", text))):
        words = code.split()
        if words[:1] == ["wegen"]:
            attempt(code, check, words[1:], False)
        elif code.startswith("--") and words[0] not in options:
            wrong.append(f"{code}\n    no command has this option")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line, error",
    [
        ("wegen trian stage-1 --data x", "invalid choice: 'trian'"),
        ("wegen train stage-1", "required: --data"),
        ("wegen train stage-1 --data x --polish 3", "unrecognized arguments: --polish"),
        ("wegen train stage-1 --data x --micro few", "argument --micro: invalid int value"),
        ("wegen train stage-1 --data x --set lorra=4", "did you mean lora?"),
        ("wegen train configs zero9", "there is no zero9"),
        ("wegen train stage-1 --data x --work 3", "unrecognized arguments: --work"),
    ],
)
def test_a_wrong_line_is_told(line, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        check_line(line)


def test_the_launches_of_the_guide_are_read():
    """Variables are put in: what is checked is the whole line that a shell would run."""
    block = next(b for b in INDENTED.findall((ROOT / "docs/training.md").read_text()) if "accelerate launch" in b)
    lines = list(shell(block))
    assert lines[0] == "wegen train configs fsdp2" and sum(line.startswith("accelerate launch --config_file /") for line in lines) == 3
    with pytest.raises(ValueError, match="unrecognized arguments: --mirco"):
        check_line(lines[-1].replace("--micro", "--mirco"))


@pytest.mark.parametrize("stage", PRESETS["paper"])
def test_the_cost_in_the_guide_is_what_the_program_reckons(stage, capsys):
    assert main(["train", "estimate", stage]) == 0
    hours = re.search(r"([\d,]+) device hours", capsys.readouterr().out)[1]
    table = (ROOT / "docs/training.md").read_text().partition("### 4. What it costs")[2]
    assert hours == re.search(r"^\| x 128, device hours \|(.*)$", table, re.M)[1].split("|")[list(PRESETS["paper"]).index(stage)].strip()
