"""The whole judgement: what it must see, what it must not see, and what it refuses."""

import dataclasses
import json
import time

import h5py
import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers
from calogen.detector.catalog import BOX_30
from calogen.evaluate import Evaluation, evaluate

N = 400


@pytest.fixture(scope="module")
def truth(make_toy):
    return make_toy(N, 11)


@pytest.fixture(scope="module")
def same(make_toy, truth):
    """Another draw for the same incident particles."""
    return make_toy(N, 12, incident=truth.incident)


@pytest.fixture(scope="module")
def judged(same, truth):
    return evaluate(same, truth, replicas=150)


def _score(evaluation, name):
    return next(r for r in evaluation.scores if r.observable == name)


def test_ten_published_rows_and_two_coarse_ones(judged):
    assert sum(r.published for r in judged.scores) == 10
    assert len(judged.rows()) == 12
    assert judged.same_incidents
    assert judged.warnings == ()


def test_a_second_draw_stays_at_the_floor(judged):
    for row in judged.scores:
        assert abs(row.jsd.significance) < 3, row
        assert abs(row.wasserstein.significance) < 3, row


def test_a_sample_against_itself_scores_zero(truth):
    for row in evaluate(truth, truth, replicas=50).scores:
        assert row.jsd.value == 0
        assert row.wasserstein.value == 0


def test_scaled_energies_move_energies_only(same, truth):
    e = evaluate(dataclasses.replace(same, energy=same.energy * 1.05), truth, replicas=150)
    assert _score(e, "visible_energy").wasserstein.significance > 5
    assert _score(e, "cell_energy").jsd.significance > 3
    assert abs(_score(e, "cog_x").jsd.significance) < 3
    assert abs(_score(e, "energy_per_layer").jsd.significance) < 3
    ratio = next(b for b in e.decades if b.quantity == "visible_energy")
    assert ratio.ratio == pytest.approx(1.05, abs=3 * ratio.ratio_error + 0.002)


def test_a_sideways_shift_moves_its_centre_of_gravity_only(same, truth):
    e = evaluate(dataclasses.replace(same, x=same.x + 2), truth, replicas=150)
    assert _score(e, "cog_x_coarse").jsd.significance > 5
    assert _score(e, "cog_x").wasserstein.significance > 5
    assert abs(_score(e, "cog_y").jsd.significance) < 3
    assert abs(_score(e, "hits_per_layer").jsd.significance) < 3


def test_batches_and_order_do_not_matter(same, truth, judged):
    order = np.random.default_rng(0).permutation(N)
    shuffled = same[order]
    streamed = evaluate((shuffled[i : i + 50] for i in range(0, N, 50)), iter([truth]), replicas=150)
    assert streamed.same_incidents
    for a, b in zip(streamed.scores, judged.scores, strict=True):
        assert a.jsd.value == pytest.approx(b.jsd.value, rel=1e-6)
        assert a.jsd.floor == pytest.approx(b.jsd.floor, rel=1e-6)


def test_other_spectra_are_reported(make_toy, truth):
    softer = make_toy(N, 13, incident=Incident.gun(N, energy=(10, 60), seed=13))
    e = evaluate(softer, truth, replicas=50)
    assert not e.same_incidents
    assert any("incident energy" in w for w in e.warnings)


def test_histograms_hold_the_means(judged, same):
    h = next(h for h in judged.histograms if h.name == "hits_per_layer")
    assert h.generated.sum() == pytest.approx(h.truth.sum(), rel=0.02)
    assert h.edges.size == h.truth.size + 1
    assert np.all(h.truth_error >= 0)


def test_decades_split_at_ten_and_hundred(make_toy):
    gun = Incident.gun(300, energy=(2, 200), spectrum="log", seed=3)
    e = evaluate(make_toy(300, 14, incident=gun), make_toy(300, 15, incident=gun), replicas=20)
    assert [b.low_gev for b in e.decades if b.quantity == "hits"] == [1, 10, 100]
    assert sum(b.n_truth for b in e.decades if b.quantity == "hits") == 300
    for b in e.decades:
        assert abs(b.ratio - 1) < 4 * b.ratio_error


def test_losses_are_counted(truth):
    far = dataclasses.replace(truth, x=np.where(np.arange(truth.n_points) == 0, 5000, truth.x))
    e = evaluate(far, truth, replicas=20)
    assert e.generated_losses.points_outside == 1
    assert e.truth_losses.points_outside == 0
    assert e.truth_losses.cells_below_threshold > 0


def test_json_round_trip(judged):
    text = judged.to_json()
    back = Evaluation.from_dict(json.loads(text))
    assert back.to_json() == text
    assert back.scores == judged.scores
    with pytest.raises(ValueError, match="format"):
        Evaluation.from_dict({"format": 99})


def test_refusals(truth, make_toy):
    with pytest.raises(ValueError, match="same detector"):
        evaluate(dataclasses.replace(truth, detector=BOX_30), truth)
    with pytest.raises(ValueError, match="at least 20"):
        evaluate(truth[:5], truth)
    with pytest.raises(ValueError, match="empty"):
        evaluate([], truth)
    with pytest.raises(ValueError, match="empty"):
        evaluate(Showers.empty(ILD_ECAL), truth)
    electrons = Incident(truth.incident.energy, truth.incident.direction, np.full(N, 11))
    with pytest.raises(ValueError, match="PDG"):
        evaluate(dataclasses.replace(truth, incident=electrons), truth)
    with pytest.raises(ValueError, match="threshold"):
        evaluate(dataclasses.replace(truth, energy=truth.energy * 1e-6), truth)


def test_halves_of_geant4_are_indistinguishable(shared):
    """All ten published rows within 3 sigma of the floor, and a 2 % energy error is seen."""
    with h5py.File(shared / "data" / "photon-barrel.h5") as f:
        n = 800
        offsets = f["offsets"][: n + 1]
        points = slice(0, offsets[-1])
        incident = Incident(f["energy_gev"][:n], f["direction"][:n], f["pdg"][:n])
        x, y = f["x_01mm"][points] / 10, f["y_01mm"][points] / 10
        s = Showers(x, y, f["layer"][points], f["energy_mev"][points] * 1e-3, offsets, incident, ILD_ECAL)
    start = time.process_time()
    e = evaluate(s[::2], s[1::2], replicas=150)
    assert time.process_time() - start < 20
    for row in e.scores:
        assert abs(row.jsd.significance) < 3, row
        assert abs(row.wasserstein.significance) < 3, row
    brighter = dataclasses.replace(s[::2], energy=s[::2].energy * 1.05)
    assert _score(evaluate(brighter, s[1::2], replicas=150), "cell_energy").jsd.significance > 3
