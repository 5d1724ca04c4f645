"""Isolated MIP-like hits: counted in showers drawn by hand and by brute force, equal in Geant4, other where blurred."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.data.formats import read
from calogen.data.projection import Hits, project
from calogen.detector.catalog import CALOCHALLENGE_1_PIONS
from calogen.detector.geometry import CartesianCells, Detector, Layer, PolarCells
from calogen.evaluate.collect import align, collect
from calogen.evaluate.parts import Batch
from calogen.evaluate.points import judge_part
from calogen.evaluate.tracks import HIGHEST_MIPS, MIP_THRESHOLDS, Tracks, isolated, track_hits

HCAL = int(ILD.layers_of("hcal")[0])
TILE_MM = 30.0
MIP_GEV = MIP_THRESHOLDS * ILD.layers[HCAL].threshold_gev


def _hits(i_x, i_y, layer, mips=1.0) -> Hits:
    """One shower: energies in MIPs in tiles of the HCal."""
    x, y = ((np.asarray(v) + 0.5) * TILE_MM for v in (i_x, i_y))
    energy = np.broadcast_to(np.asarray(mips) * MIP_GEV, x.shape)
    return project(Showers(x, y, np.asarray(layer) + HCAL, energy, [0, x.size], Incident.gun(1, pdg=211), ILD))


def _fraction(*drawn, **energies) -> float:
    return float(track_hits(_hits(*drawn, **energies)).mean())


def test_a_line_of_mips_is_all_track_and_a_block_is_none():
    deep = np.arange(20)
    assert _fraction(deep * 0, deep * 0, deep) == 1
    assert _fraction(deep, deep * 0, deep) == 1  # slanted: neighbours stand in other layers
    assert _fraction([0, 0, 1, 1], [0, 1, 0, 1], [3] * 4) == 0


@pytest.mark.parametrize(("i_x", "i_y"), list(product((-2, -1, 0, 1, 2), repeat=2)))
def test_all_eight_neighbours_count_and_no_others(i_x, i_y):
    if (i_x, i_y) != (0, 0):
        assert _fraction([0, i_x], [0, i_y], [5, 5]) == (1 if max(abs(i_x), abs(i_y)) > 1 else 0)


def test_the_window_ends_at_one_and_a_half_mips():
    apart = np.arange(5) * 3
    assert _fraction(apart, apart, [0] * 5, mips=[0.4, 0.51, 1.0, 1.49, 1.51]) == 3 / 4  # 0.4 is below threshold
    assert _fraction([0, 1], [0, 0], [0, 0], mips=[1.0, 9.0]) == 0  # a neighbour of any energy
    assert _fraction([0, 1], [0, 0], [0, 0], mips=[1.0, 0.4]) == 1  # but it must be a hit


def _narrow(*sides: tuple[int, int] | None) -> Detector:
    """Layers of grids of these sides, or of rings: so few cells that most stand at a border."""
    cells = [PolarCells((0.0, 1.0, 2.0), 4) if s is None else CartesianCells(1.0, 0.0, 0.0, *s) for s in sides]
    return Detector("narrow", tuple(Layer(k + 1.0, 0.5, f"s{k % 2}", c, 0.5) for k, c in enumerate(cells)))


def _alone(hits: Hits) -> list[bool]:
    """`isolated`, hit by hit."""
    s = hits.showers
    places = []
    for shower, layer, cell in zip(s.shower_index, s.layer, hits.cell - s.detector.first_cell[s.layer], strict=True):
        grid = s.detector.layers[layer].cells
        places.append((shower, layer, *divmod(cell, grid.n_y)) if isinstance(grid, CartesianCells) else None)
    steps = [d for d in product((-1, 0, 1), repeat=2) if d != (0, 0)]
    return [
        p is not None and not any((p[0], p[1], p[2] + dx, p[3] + dy) in set(places) for dx, dy in steps) for p in places
    ]


SIDES = st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 5)))


@settings(deadline=None, max_examples=60)
@given(st.lists(SIDES, min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_brute_force_agrees(sides, seed, filled):
    """Nothing wraps at the ends of rows, from layer to layer or from shower to shower."""
    detector = _narrow(*sides)
    rng = np.random.default_rng(seed)
    shower, cell = np.nonzero(rng.random((3, detector.n_cells)) < filled)
    layer = np.searchsorted(detector.first_cell, cell, side="right") - 1
    places = [
        detector.layers[k].cells.centre(np.array([c - detector.first_cell[k]]))
        for k, c in zip(layer, cell, strict=True)
    ]
    x, y = np.array(places).reshape(-1, 2).T
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shower, minlength=3))])
    showers = Showers(x, y, layer, rng.uniform(0.4, 2.0, cell.size), offsets, Incident.gun(3), detector)
    hits = project(showers)
    alone = _alone(hits)
    assert isolated(hits).tolist() == alone
    mip_like = hits.showers.energy <= np.float32(HIGHEST_MIPS * MIP_THRESHOLDS * 0.5)
    assert track_hits(hits).tolist() == (np.array(alone, dtype=bool) & mip_like).tolist()
    rows = Tracks().rows(Batch(showers, hits))
    if len(detector.sections) > 1 and rows:
        assert rows["layers"].sum() == track_hits(hits).sum()


@pytest.fixture(scope="module")
def pions(shared) -> Showers:
    return read(shared / "data" / "pion.h5", stop=600)


def test_geant4_against_geant4_is_at_its_floor(pions):
    """Over splits: the verdicts, and distances from the floor in errors."""
    pool = collect(pions, (Tracks(),), keep=0)
    pulls = []
    for seed in range(12):
        order = np.random.default_rng([3, seed]).permutation(len(pool))
        pair = align(pool.ordered(order[::2]), pool.ordered(order[1::2]), seed=seed, replicas=60)
        found = Tracks().findings(pair)
        assert [s.observable for s in found.scores] == [
            f"track_{k}_{section}" for section in ("ecal", "hcal") for k in ("fraction", "share")
        ]
        assert all(0 < s.error < 0.2 and s.floor == 0 and s.floor_error > 0 for s in found.scores)
        pulls += [s.value / s.error for s in found.scores]
    assert np.mean(np.abs(pulls) <= 2) >= 0.9
    assert 0.6 < np.std(pulls) < 1.4


@pytest.fixture(scope="module")
def halves(pions) -> tuple[Showers, Showers]:
    order = np.random.default_rng(1).permutation(len(pions))
    return pions[order[::2]], pions[order[1::2]]


def _values(found):
    return {s.observable: s for s in found.scores}


def test_blurred_showers_are_seen(halves):
    """Blurred by half a tile, hits of the HCal touch their neighbours; in cells of 5 mm the deposits end up alone."""
    generated, truth = halves
    blur = 0.5 * TILE_MM * np.random.default_rng(2).normal(size=(2, generated.n_points))
    blurred = dataclasses.replace(generated, x=generated.x + blur[0], y=generated.y + blur[1])
    scores = _values(judge_part("tracks", blurred, truth, replicas=60))
    assert scores["track_share_hcal"].value < -0.05
    assert scores["track_share_hcal"].significance > 4
    assert scores["track_share_ecal"].value > 0.05
    itself = _values(judge_part("tracks", blurred, generated, replicas=60))
    assert all(s.significance > 5 for s in itself.values())


def test_curves_are_the_fractions_of_layers(halves):
    generated, truth = halves
    found = judge_part("tracks", generated, truth, replicas=20)
    assert [c.name for c in found.curves] == ["tracks_ecal", "tracks_hcal"]
    hits = project(truth)
    layer, track = hits.showers.layer, track_hits(hits)
    curve = found.curves[1]
    expected = [track[layer == k].mean() for k in curve.x.astype(int)]
    assert curve.series[0].y == pytest.approx(expected)
    assert curve.x.tolist() == ILD.layers_of("hcal").tolist()
    between = (curve.series[0].y - curve.series[1].y) / np.hypot(curve.series[0].error, curve.series[1].error)
    assert np.sqrt(np.mean(between**2)) == pytest.approx(1, abs=0.4)


def test_scores_are_ratios_less_one(halves):
    generated, truth = halves
    scores = _values(judge_part("tracks", generated, truth, replicas=20))
    fractions = []
    for showers in halves:
        hits = project(showers)
        here = hits.showers.layer >= HCAL
        shower, track = hits.showers.shower_index[here], track_hits(hits)[here]
        counts = np.bincount(shower, minlength=len(showers))
        some = counts > 0
        per_shower = np.bincount(shower, weights=track, minlength=len(showers))[some] / counts[some]
        fractions.append((per_shower.mean(), track.mean()))
    (a, b), (c, d) = fractions
    assert scores["track_fraction_hcal"].value == pytest.approx(a / c - 1, rel=1e-6)
    assert scores["track_share_hcal"].value == pytest.approx(b / d - 1, rel=1e-6)


def test_a_model_without_tracks_is_as_sure_as_geant4_is(halves):
    generated, truth = halves
    bright = dataclasses.replace(generated, energy=np.where(generated.layer >= HCAL, 1.0, generated.energy))
    score = _values(judge_part("tracks", bright, truth, replicas=40))["track_fraction_hcal"]
    assert score.value == -1
    assert score.error == score.floor_error > 0
    assert score.significance > 5


def test_where_there_is_nothing_to_score_there_is_a_note(halves, toy, make_toy):
    generated, truth = halves
    alone = judge_part("tracks", toy, make_toy(200, 2), replicas=20)
    assert alone.scores == alone.curves == ()
    assert ILD_ECAL.name in alone.notes[0]
    no_cut = [dataclasses.replace(v, threshold_gev=0) if v.section == "hcal" else v for v in ILD.layers]
    bare = Detector("bare", tuple(no_cut))
    found = judge_part("tracks", *(dataclasses.replace(s, detector=bare) for s in halves), replicas=20)
    assert [s.observable for s in found.scores] == ["track_fraction_ecal", "track_share_ecal"]
    assert "no readout threshold" in found.notes[1]
    shallow = dataclasses.replace(generated, layer=np.minimum(generated.layer, HCAL - 1))
    empty = judge_part("tracks", shallow, truth, replicas=20)
    assert "0 generated showers have a hit" in empty.notes[1]
    flipped = judge_part("tracks", truth, shallow, replicas=20)
    assert "0 true showers have an isolated" in flipped.notes[1]
    rings = Showers(
        [5.0] * 40, [5.0] * 40, [0] * 40, [1.0] * 40, np.arange(41), Incident.gun(40), CALOCHALLENGE_1_PIONS
    )
    polar = judge_part("tracks", rings, rings, replicas=20)
    assert polar.scores == ()
    assert all("not square" in note for note in polar.notes)
