"""Resolution of reconstructions whose noise is known."""

import dataclasses

import numpy as np
import pytest

from calogen.detector.catalog import BOX_30
from calogen.evaluate.points import judge_part
from calogen.evaluate.tokens import judge_tokens, nearest


def _scores(found):
    return {(s.observable, s.metric): s for s in found.scores}


def test_known_noise_is_measured(toy):
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, toy.n_points))
    rebuilt = dataclasses.replace(toy, x=toy.x + 2 * noise[0] + 0.5, energy=toy.energy * np.exp(0.1 * noise[1]))
    found = judge_tokens(toy, rebuilt)
    s = _scores(found)
    assert s["x", "rms"].value == pytest.approx(np.hypot(2, 0.5), rel=0.02)
    assert s["x", "bias"].value == pytest.approx(0.5, abs=4 * s["x", "bias"].error)
    assert s["y", "rms"].value == pytest.approx(0, abs=1e-6)
    assert s["ln_energy", "rms"].value == pytest.approx(0.1, rel=0.03)
    assert s["z", "rms"].value == 0
    assert s["visible_energy", "rms"].value < 0.05
    assert s["x", "rms"].floor == pytest.approx(5.088 / np.sqrt(12), rel=1e-3)
    assert s["y", "rms"].indistinguishable
    assert not s["x", "rms"].indistinguishable
    assert len(found.curves) == 9


def test_nearest_points_survive_another_order_and_lost_points(toy):
    order = np.concatenate(
        [
            a + np.random.default_rng(2).permutation(b - a)
            for a, b in zip(toy.offsets[:-1], toy.offsets[1:], strict=True)
        ]
    )
    mixed = dataclasses.replace(
        toy, x=toy.x[order] + 0.1, y=toy.y[order], layer=toy.layer[order], energy=toy.energy[order]
    )
    partner = nearest(toy, mixed)
    assert np.mean(partner == order) > 0.99
    s = _scores(judge_tokens(toy, mixed, pairing="nearest"))
    assert s["x", "rms"].value == pytest.approx(0.1, rel=0.05)


def test_other_showers_are_refused(toy, make_toy):
    with pytest.raises(ValueError, match="not of the particles"):
        judge_tokens(toy, make_toy(200, 5))
    with pytest.raises(ValueError, match="not of the particles"):
        judge_tokens(toy, toy[:50])
    with pytest.raises(ValueError, match="same showers"):
        judge_tokens(toy, dataclasses.replace(toy, detector=BOX_30))
    fewer = make_toy(200, 6, incident=toy.incident)
    with pytest.raises(ValueError, match="cannot be paired in order"):
        judge_tokens(toy, fewer, pairing="order")
    assert "nearest" in judge_tokens(toy[:20], fewer[:20]).notes[0]


def test_as_a_part_it_compares_the_very_same_showers(make_toy):
    truth = make_toy(120, 71)
    moved = dataclasses.replace(truth, x=truth.x + np.float32(2))
    found = judge_part("tokens", moved, truth, keep=50)
    assert _scores(found)["x", "bias"].value == pytest.approx(2, abs=0.01)
    with pytest.raises(ValueError, match="particle"):
        judge_part("tokens", make_toy(120, 72), truth)
