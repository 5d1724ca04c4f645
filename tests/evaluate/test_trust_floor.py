"""Geant4 against Geant4 is at its floor: points of the same and of other particles, and voxels, over fixed splits."""

from collections.abc import Iterable

import numpy as np

from calogen.data.formats import read
from calogen.evaluate.calochallenge import observe_voxels, separation_findings
from calogen.evaluate.challenge_distances import correlation_findings
from calogen.evaluate.collect import align, collect
from calogen.evaluate.metrics import Score
from calogen.evaluate.parts import SamplePair
from calogen.evaluate.points import parts_named
from calogen.evaluate.protocol import judge_aligned
from calogen.evaluate.voxel_sample import VoxelPair

PARTS = parts_named(("sections", "mip", "hadronic", "response", "correlations", "distances", "copies"))
N = 300
SPLITS = 3


def at_the_floor(scores: Iterable[Score]) -> None:
    """The verdicts, and distances from the floor in errors: neither is the floor off, nor are errors too small."""
    known = [s for s in scores if s.error > 0]
    assert np.mean([s.indistinguishable for s in known]) >= 0.95
    pulls = np.array([(s.value - s.floor) / s.error for s in known])
    assert abs(pulls.mean()) < 0.3
    assert pulls.std() < 1.2


def scores_of(pair: SamplePair) -> list[Score]:
    samples = (pair.generated.observed, pair.truth.observed)
    table = judge_aligned(*samples, pair.paired, pair.detector, pair.truth.binning, seed=pair.seed, replicas=40)
    rows = [s for r in table.scores for s in (r.jsd, r.wasserstein)]
    return [*rows, *(s for part in PARTS for s in part.findings(pair).scores)]


def test_points_of_the_same_and_of_other_particles(shared):
    """As pairs serve neighbours in energy, either of which may be called the model's.

    Many scores see the same number of a shower, so a split is at its floor in all of them or not: it takes several.
    """
    pool = collect(read(shared / "data" / "photon-perp.h5", stop=1000), PARTS, keep=0)
    scores: list[Score] = []
    for seed in range(SPLITS):
        rng = np.random.default_rng([8, seed])
        order = rng.permutation(len(pool))
        scores += scores_of(align(pool.ordered(order[:N]), pool.ordered(order[N : 2 * N]), seed=seed, replicas=40))
        pairs = np.argsort(pool.observed.incident_energy).reshape(-1, 2)
        pairs = rng.permuted(pairs[np.sort(rng.permutation(len(pairs))[:N])], axis=1)
        first, second = (pool.ordered(pairs[:, k]) for k in (0, 1))
        scores += scores_of(SamplePair(first, second, True, seed, 40))
    at_the_floor(scores)


def test_voxels(shared):
    voxels = read(shared / "data" / "electron-par04.h5")
    scores: list[Score] = []
    for seed in range(4):
        order = np.random.default_rng([9, seed]).permutation(len(voxels))
        first, second = (observe_voxels(voxels[order[k * 500 : (k + 1) * 500]]) for k in (0, 1))
        pair = VoxelPair.of(first, second, seed=seed, replicas=60)
        scores += [s for f in (separation_findings(pair), correlation_findings(pair)) for s in f.scores]
    at_the_floor(scores)
