"""What the small classifiers of voxels lose against the published sizes, on one and the same pair of samples.

OMP_NUM_THREADS=2 python benchmarks/classifiers.py FILE [--showers N] [--scale S] [--epochs N] [--only NAME,...]

The showers of FILE (CaloChallenge 2 voxels) are halved; one half plays the model, its cell energies multiplied by
`--scale`. Prints AUC and JSD of one training each, with their errors, and the seconds it took. `--epochs` shortens the
published trainings, which have 50.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from calogen import Voxels, read
from calogen.evaluate.classifier import classify
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_training import Features
from calogen.evaluate.high_level import classifier_features
from calogen.evaluate.voxel_features import low_level, low_level_normalised
from calogen.evaluate.voxel_sample import VoxelSample, observe_voxels

PAIRS = {
    "high": ("fast-high", "published-high"),
    "low": ("fast-low", "published-low"),
    "low_normalised": ("fast-low", "published-low"),
    "resnet": ("fast-resnet", "published-resnet"),
}


def features(which: str, sample: VoxelSample) -> Features:
    if which == "high":
        return classifier_features(sample.features).values
    return (low_level_normalised if which == "low_normalised" else low_level)(sample)


def report(which: str, name: str, settings: ClassifierSettings, generated: VoxelSample, truth: VoxelSample) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    c = classify(features(which, generated), features(which, truth), settings, seed=1)
    print(
        f"{which:15s} {name:17s} AUC {c.auc:.3f} +- {c.auc_error:.3f}  JSD {c.jsd:6.3f} +- {c.jsd_error:.3f}  "
        f"best of {len(c.epochs):3d} epochs: {c.best_epoch:3d}  {c.parameters:10,d} parameters  "
        f"{time.perf_counter() - start:6.1f} s, {time.process_time() - cpu:6.1f} CPU s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--showers", type=int, default=3500, help="of both halves together")
    parser.add_argument("--scale", type=float, default=1.06, help="factor of the energies of one half")
    parser.add_argument("--epochs", type=int, default=50, help="of the published trainings, at most")
    parser.add_argument("--only", default=",".join(PAIRS), help="classifiers, separated by commas")
    options = parser.parse_args()
    voxels = read(options.file, stop=options.showers)
    assert isinstance(voxels, Voxels)
    half = len(voxels) // 2
    damaged = voxels.energy[:half] * np.float32(options.scale)
    generated = observe_voxels(Voxels(damaged, voxels.incident[:half], voxels.detector), keep=None)
    truth = observe_voxels(voxels[half : 2 * half], keep=None)
    print(f"{half} showers a sample, energies of one times {options.scale}")
    for which in options.only.split(","):
        fast, published = (PRESETS[name] for name in PAIRS[which])
        report(which, PAIRS[which][0], fast, generated, truth)
        report(which, PAIRS[which][1], replace(published, epochs=min(options.epochs, 50)), generated, truth)


if __name__ == "__main__":
    main()
