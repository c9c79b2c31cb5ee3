"""`wegen chat`: a conversation in the terminal. Pictures are saved as they come.

Replies and the files of pictures go to standard output, everything else to standard error. Whatever a turn raises ends that turn, never
the conversation; so does Ctrl-C while the model answers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..fileio import write_new
from .loras import add_lora, with_loras
from .output import save_picture, say, writable

HELP = """\
Write a message and press Enter. «undo», «again» and «the first one» work as messages too, with models of a short memory.
  /image FILE   attach a picture to the next message; in the text <image_1> stands for the first
  /undo         take the last message and its answer back
  /again        answer the last message again, with another seed
  /picture N    go back to the N-th picture of this conversation, and on from there
  /save [FILE]  keep the conversation in a file; `wegen chat --load FILE` goes on from it
  /new          start over
  /quit         end (also Ctrl-D); Ctrl-C stops an answer"""


def add(sub) -> None:
    parser = sub.add_parser("chat", help="talk to a model in the terminal; pictures are saved as they come")
    parser.add_argument("--model", default="wegen-mini", help="model folder, or wegen-mini (bundled, default)")
    parser.add_argument("--out", default="output", help="folder for pictures (default: output)")
    parser.add_argument("--load", metavar="FILE", help="go on from a conversation that /save wrote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=1.0, help="over features; 1 is off")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="look at each picture, and draw it again at most N times until it is right"
    )
    add_lora(parser)
    parser.add_argument("--rewrite", action="store_true", help="let the model describe the picture in its own words first")


def run(args) -> int:
    from ..chat.prompt import check_tokenizer
    from ..chat.saved import load_conversation
    from ..pipeline import WeGen
    from ..runtime import Runtime
    from ..self_check import MOST

    if not 0 <= args.check <= MOST:
        raise ValueError(f"--check is {args.check}: a picture is drawn again 0 (off) to {MOST} times.")
    out = Path(args.out)
    writable(out)
    model = with_loras(WeGen.load(args.model, runtime=Runtime(progress=sys.stderr.isatty())), args.lora)
    chat = Chat(model, args, out)
    say(
        f"{model.config.name}. It knows {model.config.knows or 'what its training data holds'}.\nWrite a message; /help lists what else there is."
    )
    if args.load:
        path = path_of(args.load)
        chat.talk = load_conversation(path)
        check_tokenizer(chat.talk, model.tokenizer)
        chat.files.add(path.resolve())
        said = [
            f"{'you' if t.role == 'user' else 'wegen'}> {t.text}{' [picture]' * bool(t.pictures or t.references)}" for t in chat.talk.turns
        ]
        say("\n".join([f"Going on from {path}: {len(chat.talk.messages)} messages, {len(chat.talk.drawn)} pictures.", *said]))
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 arrow keys and earlier lines at the prompt
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no text does not end the conversation
    stopped = False
    while True:
        try:
            line = input("you> ").strip()
        except EOFError:
            say("")
            return 0
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            say("\nCtrl-C once more, Ctrl-D or /quit ends the conversation.")
            continue
        stopped = False
        if line in ("/quit", "/exit"):
            return 0
        try:
            chat.line(line)
        except KeyboardInterrupt:
            say("\nStopped. That turn was given up; the conversation stands where it stood before it.")
        except (ValueError, OSError) as error:
            say(str(error))
        except Exception as error:  # noqa: BLE001 whatever a turn raises ends that turn: the conversation goes on
            say(f"That turn was given up ({type(error).__name__}: {error}). The conversation stands where it stood before it.")


class Chat:
    """The conversation, the pictures attached to its next message, and the files it may write over."""

    def __init__(self, model: Any, args: Any, out: Path):
        from ..chat.conversation import Conversation

        self.model, self.args, self.out = model, args, out
        self.talk = Conversation()
        self.waiting: list = []  # references of the next message
        self.files: set[Path] = set()  # conversations saved or loaded here
        self.pictures: dict[int, Path] = {}  # id of the features of a drawn picture -> its file

    def line(self, line: str) -> None:
        """One line that was typed."""
        name, _, rest = line.partition(" ")
        if not line.startswith("/"):
            if line:
                self.message(line)
        elif name == "/help":
            say(HELP)
        elif name == "/new":
            self.talk, self.waiting = type(self.talk)(), []
        elif name == "/image":
            self.attach(rest)
        elif name in ("/undo", "/again"):
            self.command(name[1:])
        elif name == "/picture":
            if not rest.strip().isdigit():
                raise ValueError("write /picture and its number, such as /picture 1.")
            self.command("show", int(rest))
        elif name == "/save":
            self.save(rest)
        else:
            raise ValueError(f"there is no {name}; /help lists what there is. A message does not begin with /.")

    def message(self, text: str) -> None:
        """One turn; the conversation changes when all of it is done."""
        answer = self.model.chat(
            self.talk.user(text, tuple(self.waiting)),
            rewrite=self.args.rewrite,
            temperature=self.args.temperature,
            seed=self.args.seed,
            trim_oldest=True,
        )
        self.answered(answer)
        self.waiting = []

    def command(self, name: str, number: int = 0) -> None:
        """A command of the conversation (chat/commands.py), for every model."""
        from ..chat import commands

        talk = commands.apply(self.talk, commands.Command(name, number))
        if name == "again":
            talk = self.model.chat(
                talk,
                rewrite=self.args.rewrite,
                temperature=self.args.temperature,
                seed=commands.another_seed(self.talk, self.args.seed),
                trim_oldest=True,
                commands=False,
            )
        self.answered(talk)

    def answered(self, answer: Any) -> None:
        """Say, draw and paint what was answered, then keep it."""
        for k, reference in enumerate(() if answer.notice else answer.last.references, 1):
            box = reference.box
            say(f"<bbox_{k}>: x {box.x:.2f} y {box.y:.2f} width {box.width:.2f} height {box.height:.2f}")
        if answer.reply:
            sys.stdout.write(f"wegen> {answer.reply}\n")
        features, image = answer.shown_again, None
        if answer.open_image and self.args.check:
            features, image, answer = self.checked(answer)
        elif answer.open_image:
            features, answer = self.model.draw(answer, guidance=self.args.guidance, trim_oldest=True)
        if features is not None:
            if id(features) not in self.pictures:
                seed = answer.last.seed
                if image is None:
                    image = self.model.decode(features, seed=self.args.seed if seed is None else seed)[0]
                self.pictures[id(features)] = write_new(free(self.out, "chat", ".png"), partial(save_picture, image, ending=".png"))
            sys.stdout.write(f"wegen> [picture: {self.pictures[id(features)]}]\n")
        sys.stdout.flush()
        self.talk = answer

    def checked(self, answer: Any) -> tuple[Any, Any, Any]:
        """Features, picture and conversation of a drawing that the model looked at (`--check`)."""
        from ..self_check import draw_checked

        options = dict(guidance=self.args.guidance, seed=self.args.seed, trim_oldest=True)
        made = draw_checked(self.model, answer, attempts=self.args.check, **options)
        for k, (seen, lack) in enumerate(zip(made.answers, made.lacking), 1):
            say(f"look {k}: «{seen}»" + (f", lacking: {', '.join(lack)}" if lack else ", right"))
        return made.features, made.image[0], made.conversation

    def attach(self, text: str) -> None:
        from ..chat.conversation import Reference
        from ..images import read_reference

        if not text.strip():
            raise ValueError("write /image and a picture's file, such as /image cat.png.")
        self.waiting.append(Reference(read_reference(path_of(text))))
        say(f"attached as <image_{len(self.waiting)}>")

    def save(self, text: str) -> None:
        from ..chat.saved import save_conversation

        if not self.talk.turns and not self.talk.drawn:
            raise ValueError("there is nothing to save: nothing was said yet.")
        if not text.strip():
            path = write_new(free(self.out, "talk", ".safetensors"), partial(save_conversation, self.talk))
        elif (path := path_of(text)).exists() and path.resolve() not in self.files:
            raise ValueError(f"{path} is there already: choose another name, so that nothing is lost.")
        else:
            writable(path.parent)
            save_conversation(self.talk, path)
        self.files.add(path.resolve())
        unsent = f" ({len(self.waiting)} attached, not yet sent: not in it)" if self.waiting else ""
        say(f"saved: {path}{unsent}")


def free(folder: Path, name: str, suffix: str) -> Iterator[Path]:
    """The files NAME_001, NAME_002, … after those that are there, for `write_new`."""
    taken = (p.stem[len(name) + 1 :] for p in folder.glob(f"{name}_*{suffix}"))
    first = max((int(n) for n in taken if n.isdigit()), default=0) + 1
    return (folder / f"{name}_{n:03d}{suffix}" for n in itertools.count(first))


def path_of(text: str) -> Path:
    """The file that was typed or dropped: in quotes, with `\\ ` for a space, as file://, from ~."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if text.lower().startswith("file:"):
        return Path(url2pathname(urlsplit(text).path))
    path = Path(os.path.expanduser(text))
    if "\\" in text and not path.exists():
        with contextlib.suppress(ValueError):
            words = shlex.split(text)
            path = Path(os.path.expanduser(words[0])) if len(words) == 1 else path
    return path
