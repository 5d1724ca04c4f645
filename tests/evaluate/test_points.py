"""All parts in one call: streams read once, seeds, matching, refusals, and Geant4 against Geant4."""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers
from calogen.data.formats import read
from calogen.detector.catalog import BOX_30
from calogen.evaluate.collect import collect
from calogen.evaluate.points import PARTS, judge_collected, judge_part, judge_points

FAST = ("sections", "mip", "hadronic", "response", "correlations", "angle")


class Stream:
    """Batches that can be read once, and how often they were."""

    def __init__(self, showers: Showers, size: int) -> None:
        self.showers, self.size, self.passes = showers, size, 0

    def __iter__(self) -> Iterator[Showers]:
        self.passes += 1
        yield from (self.showers[i : i + self.size] for i in range(0, len(self.showers), self.size))


@pytest.fixture(scope="module")
def pair(make_toy):
    truth = make_toy(260, 91)
    return make_toy(260, 92, incident=truth.incident), truth


@pytest.fixture(scope="module")
def judged(pair):
    return judge_points(*pair, parts=("mip", "angle"), seed=1, replicas=20)


def test_streams_are_read_once_and_batches_do_not_matter(pair, judged):
    streams = [Stream(s, 37) for s in pair]
    again = judge_points(*streams, parts=("mip", "angle"), seed=1, replicas=20)
    assert [s.passes for s in streams] == [1, 1]
    for a, b in zip(judged.findings, again.findings, strict=True):
        assert [s.observable for s in a.scores] == [s.observable for s in b.scores]
        assert [s.value for s in a.scores] == pytest.approx([s.value for s in b.scores], rel=1e-4, nan_ok=True)
    assert all(f.seconds > 0 for f in judged.findings)
    json.dumps([f.to_dict() for f in judged.findings], allow_nan=False)


def test_same_seed_same_numbers(pair):
    first, second, other = (judge_part("hadronic", *pair, seed=s, replicas=20) for s in (1, 1, 2))
    assert first.scores == second.scores
    assert first.scores != other.scores


def test_kept_showers_are_a_random_part_of_the_same_places(pair):
    generated, truth = pair
    a, b = (collect(Stream(s, n), (), keep=50, seed=4) for s, n in ((generated, 30), (truth, 41)))
    assert np.array_equal(a.kept_index, b.kept_index)
    assert len(a.kept) == 50
    assert np.array_equal(a.kept.incident.energy, generated.incident.energy[a.kept_index])
    assert a.kept_index[-1] > 200
    order = np.arange(0, 260, 2)
    half = a.ordered(order)
    assert np.array_equal(half.kept.incident.energy, half.observed.incident_energy[half.kept_index])


def test_matching_takes_out_another_spectrum(make_toy):
    truth = make_toy(900, 93)
    softer = make_toy(900, 94, incident=Incident.gun(900, energy=(10, 60), seed=94))
    plain = judge_points(softer, truth, parts=(), replicas=20).evaluation
    matched = judge_points(softer, truth, parts=(), replicas=20, match=True).evaluation
    assert any("incident energy is distributed" in w for w in plain.warnings)
    assert "were matched" in matched.warnings[0]
    assert matched.n_generated == matched.n_truth < 900
    energy = [next(r for r in e.scores if r.observable == "visible_energy").wasserstein for e in (plain, matched)]
    assert energy[0].significance > 5
    assert energy[1].significance < 3


def test_refusals(pair):
    generated, truth = pair
    with pytest.raises(ValueError, match="unknown part 'angel'"):
        judge_points(generated, truth, parts=("angel",))
    with pytest.raises(ValueError, match="named twice"):
        judge_points(generated, truth, parts=("angle", PARTS["angle"]))
    with pytest.raises(ValueError, match="was not collected"):
        judge_collected(collect(generated, ()), collect(truth, ()), parts=("angle",))
    with pytest.raises(ValueError, match="same detector"):
        judge_points(Stream(dataclasses.replace(generated, detector=BOX_30), 20), truth)
    with pytest.raises(ValueError, match="at least 20"):
        judge_points(generated[:5], truth)
    with pytest.raises(ValueError, match="empty"):
        judge_points(iter([]), truth)
    with pytest.raises(ValueError, match="empty"):
        judge_points(Showers.empty(ILD_ECAL), truth)


@pytest.mark.parametrize("file", ["photon-barrel", "pion"])
def test_geant4_against_geant4_is_indistinguishable(shared, file):
    """At least 95 % of all scores of two halves of a file, and not fewer in any but by chance."""
    s = read(shared / "data" / f"{file}.h5", stop=600)
    order = np.random.default_rng(5).permutation(len(s))
    evaluation, findings = judge_points(s[order[::2]], s[order[1::2]], parts=FAST, seed=6, replicas=60)
    scores = [s for r in evaluation.scores for s in (r.jsd, r.wasserstein)] + [s for f in findings for s in f.scores]
    assert len(scores) > 90
    assert np.mean([s.indistinguishable for s in scores]) >= 0.95
    assert all(s.significance < 5 for s in scores)
