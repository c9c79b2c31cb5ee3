"""`wegen data`: look at a mixture, write shards of public datasets, build DIIC and Laion-COCO-Recaption."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

EACH = 4  # samples of a batch that is looked at


def add(sub) -> None:
    data = sub.add_parser("data", help="training data: shards of public datasets, mixtures, DIIC")
    todo = data.add_subparsers(dest="what", required=True, metavar="WHAT")

    todo.add_parser("list", help="the datasets of the paper's Table 1: tasks, and what their folders must hold")

    make = todo.add_parser("shards", help="a dataset, as it is distributed, to shards; a stopped run goes on")
    make.add_argument("dataset", help="its name; `wegen data list` has them")
    make.add_argument("folder", help="its folder")
    make.add_argument("out", help="folder of shards to write")
    make.add_argument("--task", default="", help="which of its tasks (default: the first)")
    make.add_argument("--limit", type=int, help="at most so many items")
    make.add_argument("--per-shard", type=int, default=1000, help="samples a shard (default: 1000)")
    make.add_argument("--side", type=int, default=1024, help="longest side of a picture (default: 1024)")
    make.add_argument("--least-side", type=int, default=0, help="skip samples that draw a smaller picture (SEED-X: 400)")
    make.add_argument("--lossless", action="store_true", help="PNG instead of JPEG")

    look = todo.add_parser("inspect", help="the batches of a training stage: a contact sheet and a table")
    look.add_argument("source", help="what `wegen train --data` takes, or with --dataset a dataset's folder")
    look.add_argument("--dataset", help="read the folder with this dataset's reader, without shards")
    look.add_argument("--task", default="", help="with --dataset: which of its tasks")
    look.add_argument("--model", default="wegen-mini", help="whose tokenizer and sizes (default: wegen-mini)")
    look.add_argument("--stage", choices=("stage-1", "stage-2"), default="stage-1", help="whose batches (default: stage-1)")
    look.add_argument("--preset", default="paper", help="of settings, as `wegen train` (default: paper)")
    look.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of the preset")
    look.add_argument("--count", type=int, default=12, help="samples at least (default: 12)")
    look.add_argument("--step", type=int, default=0, help="from this step of training (default: 0)")
    look.add_argument("--rank", default="0/1", help="rank/world (default: 0/1)")
    look.add_argument("--out", default="output/inspect.png", help="PNG to write")

    from .diic import add as add_diic

    add_diic(todo)


def run(args: argparse.Namespace) -> int:
    return {"list": _list, "shards": _shards, "inspect": _inspect, "diic": _diic, "recaption": _diic}[args.what](args)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _diic(args) -> int:
    from .diic import run as run_diic

    return run_diic(args)


def _list(args) -> int:
    from ..data.readers import READERS

    for r in READERS.values():
        _say(f"{r.name:22}{', '.join(r.tasks):40}{r.needs}")
    return 0


def _shards(args) -> int:
    from ..data import shards
    from ..data.items import Skips
    from ..data.readers import READERS, items
    from ..runtime import Runtime

    if args.per_shard < 1 or args.side < 16:
        raise ValueError("--per-shard is at least 1, --side at least 16.")
    skips = Skips(Path(args.out) / "skipped.jsonl")
    found = itertools.islice(items(args.dataset, args.folder, args.task, skips), args.limit)
    runtime = Runtime("cpu", progress=sys.stderr.isatty())
    task = args.task or READERS[args.dataset].tasks[0]
    shards.remember(
        Path(args.out),
        {
            "dataset": args.dataset,
            "task": task,
            "--per-shard": args.per_shard,
            "--side": args.side,
            "--least-side": args.least_side,
            "--lossless": args.lossless,
        },
    )
    total = shards.write(found, args.out, args.dataset, skips, args.per_shard, args.side, args.least_side, args.lossless, runtime)
    _say(f"{args.out}: {total} samples of {args.dataset}\n{skips.text()}")
    if not total:
        raise ValueError(f"{args.folder}: no sample of {args.dataset} could be made of it.")
    return 0


def _inspect(args) -> int:
    from ..chat.tokenizer import Tokenizer
    from ..checkpoint.model_folder import read_config, resolve
    from ..data.contact_sheet import save, sheet, table
    from ..train.presets import settings
    from ..train.stages.language import inputs_of
    from .train import changes, open_source

    folder = resolve(args.model)
    config, tokenizer = read_config(folder), Tokenizer.load(folder)
    s = settings(args.preset, args.stage, changes(args.set))
    rank, world = _rank(args.rank)
    if args.dataset:
        from ..data.items import Skips, every
        from ..data.readers import items

        skips = Skips()
        some = list(itertools.islice(every(items(args.dataset, args.source, args.task, skips), args.dataset, skips), args.count))
        if not some:
            raise ValueError(f"{args.source}: no sample of {args.dataset} could be made of it; {skips.text()}")
        batches = [inputs_of(some[i : i + EACH], config, tokenizer, s, i, 0) for i in range(0, len(some), EACH)]
        _say(skips.text())
    else:
        source, batches = open_source(args.source, s.seed, EACH, args.model, ""), []
        for step in itertools.count(args.step):
            made = inputs_of(source.samples(step, rank, world, EACH), config, tokenizer, s, step, rank)
            made.skipped |= getattr(source, "skipped", {})
            batches.append(made)
            if sum(len(b.keys) for b in batches) >= args.count:
                break
    save(sheet(batches, config, tokenizer), Path(args.out))
    _say(table(batches, tokenizer))
    _say(args.out)
    return 0


def _rank(text: str) -> tuple[int, int]:
    try:
        rank, world = map(int, text.split("/"))
    except ValueError:
        rank, world = 0, 0
    if not 0 <= rank < world:
        raise ValueError(f"--rank {text}: write rank/world, for example 0/8.")
    return rank, world
