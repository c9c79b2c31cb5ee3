"""`wegen train`: the stages, their presets, launch configurations, and what a run would cost.

wegen train stage-1 --preset paper --model DIR --data DATA --folder runs/stage-1 --micro 4
wegen train subject mochi --data pictures
accelerate launch --config_file $(wegen train configs fsdp2) -m wegen.wegen_model train stage-1 …
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "train" / "configs"


def add(sub) -> None:
    """The subcommand's arguments."""
    from ..train.presets import PRESETS
    from ..train.settings import STAGES

    train = sub.add_parser("train", help="train or fine-tune a model: the paper's stages, one machine to many")
    what = train.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name in STAGES:
        stage = what.add_parser(
            name,
            help={
                "tower": "a small tower learns to see, for models made from nothing",
                "vae": "an autoencoder learns latents and pictures, for models made from nothing",
                "vae-decoder": "the autoencoder's decoder learns what the UNet paints",
                "visual-decoding": "the UNet learns to paint features (--set lora=16: an adapter)",
                "stage-1": "the language model learns to read and write features",
                "stage-2": "the same, going on with other data",
            }[name],
        )
        stage.add_argument("--preset", default="paper", help=f"{', '.join(PRESETS)} (default: paper); `wegen train presets` shows them")
        stage.add_argument("--model", default="wegen-mini", help="model folder to start from, as `wegen convert` writes it")
        stage.add_argument(
            "--data",
            required=True,
            help="a folder of pictures (captions: .txt of the same name), a mixture file, or mini: the miniature's drawn world",
        )
        stage.add_argument("--folder", help="work folder: checkpoints, log, sample sheets (default: runs/STAGE)")
        stage.add_argument("--target", help="model folder to write at the end (default: FOLDER/model)")
        stage.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of the preset")
        stage.add_argument(
            "--change",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="go on with another setting, data=… or micro=… than the run in the work folder began with; it is logged",
        )
        stage.add_argument("--micro", type=int, default=0, help="samples that a process takes at once (default: all of its share)")
        stage.add_argument("--workers", type=int, default=0, help="processes that read data ahead, for each training process")
        stage.add_argument("--sample-every", type=int, default=0, help="steps between sheets of sample pictures (default: none)")
        stage.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard, with sample pictures: --track tensorboard")
        stage.add_argument(
            "--track", action="append", default=[], metavar="NAME", help="also log to a tracker of accelerate's: wandb, mlflow …"
        )
        stage.add_argument(
            "--held-out",
            metavar="SHARE|DATA",
            help="measure the loss on a share of the pictures of --data, which is not trained on then (0.02), or on other data",
        )
        stage.add_argument("--held-out-every", type=int, default=0, help="steps between those measurements (default: save_every)")
        stage.add_argument("--stop-after", type=float, metavar="SECONDS", help="save and stop; the same command goes on")
        stage.add_argument("--cpu", action="store_true", help="train on the CPU even where there is a GPU")
    subject = what.add_parser("subject", help="one thing of yours, by a name: a LoRA of the language model on 3 to 8 pictures")
    subject.add_argument("name", help="what it will be called, in quotes if it has spaces: mochi")
    subject.add_argument("--data", required=True, metavar="FOLDER", help="pictures of the thing, each showing it alone")
    subject.add_argument("--model", default="wegen-mini", help="model folder, or wegen-mini (bundled, default)")
    subject.add_argument("--kind", default="", help="a word that the model knows and that says what it is, such as cat")
    subject.add_argument("--folder", default="runs/subject", help="work folder: checkpoints and log (default: runs/subject)")
    subject.add_argument(
        "--loras", default="models/loras", metavar="FOLDER", help="where NAME.safetensors is written (default: models/loras)"
    )
    subject.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting: steps, learning_rate, lora …")
    subject.add_argument("--cpu", action="store_true", help="train on the CPU even where there is a GPU")
    join = what.add_parser("start", help="join converted stock parts into the model folder that training begins with")
    for part, text in (("tower", "EVA-CLIP"), ("language", "LLaMA-2, --initialise"), ("decoder", "SDXL with its VAE, --initialise")):
        join.add_argument(f"--{part}", required=True, metavar="FOLDER", help=f"model folder that `wegen convert` made of {text}")
    join.add_argument("target", help="model folder to write; its projectors are new")
    hub = what.add_parser("hub", help="a finished run as a folder for a model hub: the model and a card; nothing is uploaded")
    hub.add_argument("run", help="work folder of the run")
    hub.add_argument("target", help="folder to write")
    hub.add_argument("--license", default="other", help="as the hub writes it (default: other); mind those of the start's parts")
    hub.add_argument("--name", default="", help="of the card (default: the target's)")
    what.add_parser("presets", help="print every setting of every preset")
    configs = what.add_parser("configs", help="list the launch configurations for accelerate, or print the path of one")
    configs.add_argument("name", nargs="?")
    cost = what.add_parser("estimate", help="the arithmetic of a run: FLOP and hours")
    cost.add_argument("stage", help=", ".join(STAGES))
    cost.add_argument("--preset", default="paper")
    cost.add_argument("--model", default="wegen-7b", help="a preset of sizes, or a model folder")
    cost.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    cost.add_argument("--devices", type=int, default=128)
    cost.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of one device in bf16 (default: 989, an H100 SXM)")
    cost.add_argument("--mfu", type=float, default=0.35, help="share of the peak that a run reaches (default: 0.35, an assumption)")
    cost.add_argument("--tokens", type=int, default=320, help="mean length of a sample (default: 320)")


def run(args) -> int:
    if args.what == "presets":
        from ..train.presets import LEGEND, table

        sys.stdout.write(f"{table()}\n{LEGEND}\n")
    elif args.what == "subject":
        sys.stdout.write(f"{_subject(args)}\n")
    elif args.what == "start":
        from ..checkpoint.join import start

        sys.stdout.write(f"{start(args.tower, args.language, args.decoder, args.target)}\n")
    elif args.what == "hub":
        from ..train.hub import export_for_hub

        sys.stdout.write(f"{export_for_hub(args.run, args.target, args.license, args.name)}\n")
    elif args.what == "configs":
        sys.stdout.write(_configs(args.name) + "\n")
    elif args.what == "estimate":
        sys.stdout.write(_estimate(args) + "\n")
    else:
        _train(args)
    return 0


def changes(pairs: list[str], option: str = "--set") -> dict[str, str]:
    """NAME=VALUE texts as a dictionary."""
    for text in pairs:
        if "=" not in text:
            raise ValueError(f"{option} {text}: write NAME=VALUE, as in {option} steps=2000.")
    return dict(text.split("=", 1) for text in pairs)


def _subject(args) -> Path:
    """Train a subject, and write its LoRA: the file."""
    from ..pipeline import WeGen
    from ..runtime import Runtime
    from ..train import subject
    from ..train.presets import SUBJECT
    from ..train.settings import changed

    changed_ones = changes(args.set)
    asked = changed(dataclasses.replace(SUBJECT, warmup=0), changed_ones, "stage-1")  # subject_settings fits warm-up to the steps
    runtime = Runtime("cpu" if args.cpu else None, progress=sys.stderr.isatty())
    model = WeGen.load(args.model, runtime=runtime)
    s = subject.subject_settings(model.config, runtime.device, **{name: getattr(asked, name) for name in changed_ones})
    pictures = subject.read_pictures(Path(args.data), runtime.warn)
    made = subject.train_subject(model, pictures, args.name, s, Path(args.folder), kind=args.kind)
    return subject.write_subject(Path(args.loras), made, model, s)


def _configs(name: str | None) -> str:
    found = {p.stem: p for p in sorted(CONFIGS.glob("*.yaml"))}
    if name is None:
        return "\n".join(f"{stem:<16}{_first_line(p)}" for stem, p in found.items())
    if name not in found:
        raise ValueError(f"there is no launch configuration {name!r}: {', '.join(found)}.")
    return str(found[name])


def _first_line(path: Path) -> str:
    return path.read_text().splitlines()[0].lstrip("# ")


def _estimate(args) -> str:
    from ..checkpoint import model_folder
    from ..config import PRESETS
    from ..train.flops import estimate
    from ..train.presets import settings

    row = settings(args.preset, args.stage, changes(args.set))
    config = PRESETS.get(args.model) or model_folder.read_config(model_folder.resolve(args.model))
    return estimate(config, args.stage, row, args.devices, args.peak * 1e12, args.mfu, args.tokens)


def divide(batch: int, micro: int, processes: int) -> int:
    """Pieces of a process in one step.

    Raises:
        ValueError: the batch cannot be divided evenly.
    """
    micro = micro or max(1, batch // processes)
    if micro < 1 or batch % (micro * processes):
        near = max(1, round(batch / (micro * processes))) * micro * processes
        raise ValueError(
            f"a batch of {batch} cannot be divided evenly among {processes} process{'es' * (processes > 1)} that take "
            f"{micro} at once. Choose --set batch={near}, or another --micro."
        )
    return batch // (micro * processes)


def open_source(path: str, seed: int, count: int, model: str = "wegen-mini", option: str = "--data ", keyed: bool = False):
    """A source of samples (data/image_folder.py): a folder of pictures, a mixture file or folder of shards, `count` samples at once; or
    `mini`, the miniature's drawn world (mini/dataset.py) with options, as mini:samples=20000,mix=harder. `option`: what messages call it;
    `keyed`: its pictures are known by a key, for `cache`."""
    if path == "mini" or path.startswith("mini:"):
        from ..mini.dataset import open_dataset

        return open_dataset(path, seed, model)
    from ..data.image_folder import Mixed, PictureFolder

    place = Path(path)
    if not place.exists():
        raise ValueError(
            f"{option}{path}: there is no such folder or file. Name a folder of pictures, a folder of shards, or a mixture file."
        )
    if place.is_file() or any(next(place.glob(sign), None) is not None for sign in ("*.tar", "shards.json")):
        try:
            from ..data.mixture import Mixture
        except ImportError as error:  # the shards' libraries
            if place.is_file():
                raise ValueError(
                    f"{option}{path}: reading a mixture needs the packages of wegen[train]. Install them, or name a folder of pictures."
                ) from error
        else:
            return Mixed(Mixture.load(place), count, keyed)
    if inner := sorted(p.parent.name for p in place.glob("*/shards.json")):
        raise ValueError(
            f"{option}{path}: it holds folders of shards ({', '.join(inner[:5])}{' …' * (len(inner) > 5)}). Name one of them, "
            "or a mixture file that names several."
        )
    _warn_of_dataset(place, option)
    return PictureFolder(place, seed, keyed)


def _warn_of_dataset(place: Path, option: str) -> None:
    """A public dataset's pictures are taken, but not its words."""
    import logging

    from ..data.readers import guesses

    if kinds := guesses(place):
        logging.getLogger("wegen").warning(
            "%s%s looks like %s. Only its pictures are taken, with .txt beside them as captions; `wegen data shards %s %s OUT` reads "
            "all of it.",
            option,
            place,
            " or ".join(kinds),
            kinds[0],
            place,
        )


def _train(args) -> None:
    from ..runtime import Runtime
    from ..train.held_out import HeldOut
    from ..train.presets import settings
    from ..train.run import run_stage
    from ..train.trackers import check_names

    other = changes(args.change, "--change")
    _apply(other, args)
    s = settings(args.preset, args.what, changes(args.set) | {k: v for k, v in other.items() if k not in ("data", "micro")})
    for name in ("micro", "workers", "sample_every", "held_out_every"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}: it cannot be negative.")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accumulate = divide(s.batch, args.micro, processes)
    each = s.batch // (accumulate * processes)
    main = os.environ.get("RANK", "0") == "0"
    source = open_source(args.data, s.seed, each, args.model, keyed=s.cache)
    aside = held_out_of(args.held_out, source, s.seed, each, args.model, s.cache) if args.held_out else None
    written = run_stage(
        args.what,
        s,
        args.model,
        source,
        args.folder or Path("runs") / args.what,
        args.target,
        runtime=Runtime("cpu" if args.cpu else None, progress=main),
        accumulate=accumulate,
        stop_after=args.stop_after,
        workers=args.workers,
        trackers=check_names(args.track + ["tensorboard"] * args.tensorboard),
        sample_every=args.sample_every,
        held_out=HeldOut(aside, args.held_out_every or s.save_every) if aside is not None else None,
        processes=processes,
        command=shlex.join(sys.argv),
        allowed=frozenset(other),
        main=main,
    )
    if main:
        sys.stderr.write(written + "\n")


def _apply(other: dict[str, str], args) -> None:
    """`--change data=…` and `micro=…` in place of --data and --micro. ValueError: what cannot change on the way."""
    from ..train.run_record import UNCHANGEABLE

    for name in other.keys() & set(UNCHANGEABLE):
        raise ValueError(f"--change {name}: the weights of a run hang on it, so it stays. Begin anew in another --folder.")
    args.data = other.get("data", args.data)
    if "micro" in other:
        if not other["micro"].isdecimal():
            raise ValueError(f"--change micro={other['micro']}: micro is a whole number of samples.")
        args.micro = int(other["micro"])


def held_out_of(text: str, source, seed: int, count: int, model: str, keyed: bool = False):
    """The source behind --held-out: a share of a folder of pictures, which leaves it, or data of its own."""
    try:
        share = float(text)
    except ValueError:
        aside = open_source(text, seed, count, model, "--held-out ", keyed)
        if hasattr(aside, "identity") and hasattr(source, "identity") and aside.identity()["hash"] == source.identity()["hash"]:
            raise ValueError(f"--held-out {text} is what is trained on. Name other data (of mini, another seed).") from None
        return aside
    if not hasattr(source, "hold_out"):
        raise ValueError(
            f"--held-out {text}: a share can be held out of a folder of pictures only. Name other shards, or mini:…,seed=1000."
        )
    return source.hold_out(share)
