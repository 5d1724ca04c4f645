"""What a generator of tokens learns faster from another particle's: photons to electrons to pions, beside from scratch.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py STATE -o DIR --kind electrons electrons.h5 --kind pions pions.h5
        [--showers 50 200 500] [--test 150] [--steps 300] [--drawn 100]

STATE was trained on photons. For each kind in turn, and each number of its showers, two generators of the same tokens
are trained by the same plan: one that starts from the kind before (photons' STATE at first, then the run with the most
showers), and one that starts anew. Both keep STATE's tokenizer. Each is told by its best loss on unseen showers, nats a
token, and by the sliced Wasserstein distance of showers drawn for their particles; one that does not end is cut at
twice the longest in training. "tokenizer" is the distance of these showers written as tokens and read back: no
generator of these tokens does better.

Runs go on after a kill; `DIR/transfer.json` has the numbers so far.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import calogen
from calogen.cli.files import points
from calogen.data.showers import Showers
from calogen.evaluate.scaling_scores import DistanceJudge
from calogen.systems.omnijet import OmniJet

TOKENIZED = ("tokenizer", "groups", "energies")


def started(origin: OmniJet, source: OmniJet | None, seed: int) -> OmniJet:
    """A system of the origin's tokens, whose generator starts from the source's, or anew."""
    config = replace(origin.config, network=replace(origin.config.network, drafts=0), ranked=False)
    system = OmniJet.create(config, origin.detector, seed=seed)
    if source is not None:
        system.start_from(source, label="the kind before")
        return system
    for name in TOKENIZED:
        system.parts()[name].load_state_dict(origin.parts()[name].state_dict())
    system.taken = True
    system.generator.start_at(system.tokens.values())
    return system


def trained(system: OmniJet, train: Showers, test: Showers, args: argparse.Namespace, folder: Path) -> float:
    """Fit the generator; its best loss on unseen showers."""
    plan = replace(
        system.plans()["generator"],
        steps=args.steps,
        warmup_steps=args.steps // 10,
        validate_every=args.steps // 6,
        validation_showers=len(test),
        ema="none",
    )
    *_, report = system.fit(train, {"generator": plan}, run_dir=folder, validation=test, progress=False)
    assert report.best_loss is not None
    return report.best_loss


def distance(judge: DistanceJudge, showers: Showers) -> dict[str, float]:
    """With its error and the floor."""
    found = judge.score(showers)
    return {"distance": found.value, "error": found.error, "floor": found.floor}


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kind", nargs=2, action="append", required=True, metavar=("NAME", "FILE"))
    parser.add_argument("--showers", nargs="+", type=int, default=[50, 200, 500])
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--drawn", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    origin = before = calogen.load(str(args.state))
    rows: list[dict[str, Any]] = []
    for kind, file in args.kind:
        every = points(calogen.read(file))
        if len(every) < max(args.showers) + args.test:
            raise SystemExit(f"{file}: {len(every)} showers; {max(args.showers)} and {args.test} to test on are needed")
        test, rest = every[: args.test], every[args.test :]
        judge = DistanceJudge(test[: args.drawn], rest, paired=True)
        own = started(origin, None, seed=0)
        own.learn_range(every)
        rows.append({"kind": kind, "way": "tokenizer", **distance(judge, own.reconstruct(test[: args.drawn], seed=1))})
        print(rows[-1], flush=True)
        latest = before
        for number in sorted(args.showers):
            for way, source in (("from the kind before", before), ("anew", None)):
                system = started(origin, source, seed=0)
                loss = trained(
                    system, rest[:number], test, args, args.output / f"{kind}-{number}-{'from' if source else 'anew'}"
                )
                wanted = test.incident[: args.drawn]
                made = system.showers_of(system.draw(wanted, seed=1, cut=True), wanted)
                rows.append({"kind": kind, "way": way, "showers": number, "loss": loss, **distance(judge, made)})
                print(rows[-1], flush=True)
                (args.output / "transfer.json").write_text(json.dumps(rows, indent=1))
                latest = system if source else latest
        before = latest


if __name__ == "__main__":
    np.seterr(all="warn")
    main()
