"""The `wegen` command: run workflows, chat, encode, decode, inspect, convert, measure, and the miniature's recipe.

Exit codes: 0 done · 1 failed · 2 wrong usage or input · 3 a workflow with foreign nodes · 130 cancelled.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from ..config import QUANTIZATIONS
from . import bench, chat, run
from . import train as train_command
from .output import picture_format, save_picture, say, writable


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="wegen", description="WeGen: a chat model that sees and draws.")
    sub = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run.add(sub)
    chat.add(sub)
    encode = sub.add_parser("encode", help="picture -> features (safetensors)")
    _model(encode)
    encode.add_argument("picture")
    encode.add_argument("features", help="file to write")
    encode.add_argument("--fit", choices=("squash", "crop", "pad"), default="squash")

    decode = sub.add_parser("decode", help="features (safetensors) -> picture")
    _model(decode)
    decode.add_argument("features")
    decode.add_argument("picture", help="PNG, JPEG or WebP to write, by the ending of its name")
    decode.add_argument("--steps", type=int)
    decode.add_argument("--guidance-scale", type=float)
    decode.add_argument("--seed", type=int, default=0)
    decode.add_argument("--width", type=int)
    decode.add_argument("--height", type=int)

    inspect = sub.add_parser("inspect", help="say what is in a model file or folder, without reading its weights")
    inspect.add_argument("path")
    inspect.add_argument("--whole", action="store_true", help="read PyTorch files from before 1.6 into memory")
    inspect.add_argument("--verify", action="store_true", help="compare a converted folder's files with their hashes")

    convert = sub.add_parser("convert", help="public checkpoint files -> a model folder; or, with --layout, the other way")
    convert.add_argument("source", help="the release's folder, a diffusers or Hugging Face folder, one file, or a model folder")
    convert.add_argument("target", help="model folder to write (with --layout: a .safetensors file)")
    convert.add_argument("--part", action="append", help="only this part (may be given several times)")
    convert.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="precision to store (default: as it is)")
    convert.add_argument("--quantize", metavar="KIND", default="", help=f"quantize tower and language model: {', '.join(QUANTIZATIONS)}")
    convert.add_argument("--config", help="JSON of sizes, for models that match no preset")
    convert.add_argument("--whole", action="store_true", help="read PyTorch files from before 1.6 into memory")
    convert.add_argument(
        "--initialise", action="store_true", help="for training: take a stock SDXL UNet or LLaMA-2, initialise the rest at random"
    )
    convert.add_argument("--layout", metavar="NAME", help="write one file in a public layout instead; a wrong name lists them")

    bench.add(sub)
    mini = sub.add_parser("mini", help="the miniature: train, evaluate, list what it knows")
    todo = mini.add_subparsers(dest="what", required=True, metavar="WHAT")
    train = todo.add_parser("train", help="run or resume the whole recipe, or one stage")
    train.add_argument("--folder", default="runs/mini", help="work folder (default: runs/mini)")
    train.add_argument("--size", default="cpu", help="preset of the recipe (default: cpu)")
    train.add_argument("--stage", action="append", default=[], help="only this stage (may be given several times)")
    train.add_argument("--target", help="model folder to export to (default: FOLDER/wegen-mini)")
    train.add_argument("--seed", type=int, default=0, help="of samples, pictures and initial weights (default: 0)")
    train.add_argument("--start", metavar="MODEL", help="go on from a miniature: a model folder")
    evaluate = todo.add_parser("eval", help="measure a miniature; prints a table and writes picture sheets")
    evaluate.add_argument("--model", default="wegen-mini")
    evaluate.add_argument("--out", default="output/eval")
    evaluate.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    evaluate.add_argument("--per-concept", type=int, default=4, help="pictures a concept and seed; other tests grow too (default: 4)")
    concepts = todo.add_parser("concepts", help="list the things the miniature can draw")
    concepts.add_argument("--model", default="wegen-mini")

    from .data import add as add_data

    add_data(sub)
    train_command.add(sub)
    return p


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="wegen-mini", help="model folder, or wegen-mini (bundled, default)")


def main(argv: list[str] | None = None, nodes: Callable[[], dict[str, type]] = dict, names: Callable[[], dict[str, str]] = dict) -> int:
    """Run a command; returns the exit code.

    Args:
        nodes: gives {class type: node class} for `wegen run`: the library knows of none itself.
        names: gives {class type: display name}.
    """
    if not _has_torch():
        say("wegen needs PyTorch, which is not installed: `pip install torch`, or `make demo`, which sets up everything; then try again.")
        return 2
    args = _parser().parse_args(argv)
    args.nodes, args.names = nodes, names
    try:
        return COMMANDS[args.command](args) or 0
    except KeyboardInterrupt:
        say("cancelled")
        return 130
    except ImportError as error:
        say(
            f"wegen {args.command}: {error.name or error} is not installed. `make demo` sets the environment up; "
            "otherwise: pip install torch, then pip install -r requirements.txt"
        )
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        say(f"wegen {args.command}: {error}")
        return 2 if isinstance(error, (ValueError, OSError)) else 1


def _has_torch() -> bool:
    """Whether torch is there, without loading it."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


def _load(args):
    from ..pipeline import WeGen
    from ..runtime import Runtime

    return WeGen.load(args.model, runtime=Runtime(progress=sys.stderr.isatty()))


def _encode(args) -> None:
    from ..features import save_features
    from ..images import read_float

    writable(Path(args.features).parent)
    features = _load(args).encode(read_float(args.picture), fit=args.fit)
    save_features(features, args.features)
    say(f"{args.features}: {tuple(features.tokens.shape)} of {features.space}")


def _decode(args) -> None:
    from ..features import load_features

    picture_format(Path(args.picture))
    writable(Path(args.picture).parent)
    model = _load(args)
    image = model.decode(
        load_features(args.features),
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        width=args.width,
        height=args.height,
    )
    save_picture(image[0], Path(args.picture))
    say(args.picture)


def _inspect(args) -> None:
    from ..checkpoint.report import inspect

    sys.stdout.write(inspect(args.path, args.whole, args.verify).text() + "\n")


def _convert(args) -> None:
    import torch

    from ..checkpoint.convert import convert, export
    from ..runtime import Runtime

    chosen = dict(
        parts=args.part, dtype=getattr(torch, args.dtype) if args.dtype else None, whole=args.whole, runtime=Runtime("cpu", progress=True)
    )
    if args.layout:
        if args.config or args.initialise or args.quantize:
            raise ValueError(
                "--layout writes a model as it is: leave out --config, --initialise and --quantize, or convert to a folder first."
            )
        report = export(args.source, args.target, args.layout, **chosen)
    else:
        report = convert(args.source, args.target, config=args.config, initialise=args.initialise, quantize=args.quantize, **chosen)
    sys.stdout.write(report.text() + "\n")


def _mini(args) -> None:
    if args.what == "concepts":
        from ..checkpoint.model_folder import read_config, resolve

        config = read_config(resolve(args.model))
        sys.stdout.write("\n".join(config.concepts) + "\n" if config.concepts else f"{config.name}: open vocabulary\n")
    elif args.what == "train":
        from ..checkpoint.model_paths import resolve
        from ..mini.recipe import train

        target = train(args.folder, args.size, tuple(args.stage), args.target, start=args.start and resolve(args.start), seed=args.seed)
        if target:
            sys.stdout.write(f"{target}\n")
    else:
        from ..mini.evaluate.measure import evaluate

        writable(Path(args.out))
        sys.stdout.write(evaluate(args.model, args.out, args.seeds, args.per_concept) + "\n")


def _data(args) -> int:
    from .data import run

    return run(args)


COMMANDS = {
    "run": run.run,
    "chat": chat.run,
    "encode": _encode,
    "decode": _decode,
    "inspect": _inspect,
    "convert": _convert,
    "mini": _mini,
    "data": _data,
    "train": train_command.run,
    "bench": bench.run,
}
