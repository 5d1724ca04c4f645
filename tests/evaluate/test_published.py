"""The published results: the same numbers as the challenge's files, and ranks among them."""

import json

import numpy as np
import pytest

from calogen.evaluate.challenge_histograms import DATASETS
from calogen.evaluate.findings import Findings
from calogen.evaluate.metrics import Score
from calogen.evaluate.published import COLUMNS, compare, submissions

FILES = {name: f"published_{name.replace('-', '_')}.json" for name in DATASETS}
PUBLISHED = {
    "fpd": ("FPD * 1e3", 1e-3),
    "kpd": ("KPD * 1e3", 1e-3),
    "coverage": ("coverage", 1),
    "cpu_ms_100": ("time CPU 100", 1),
    "parameters": ("Parameters generation", 1),
    "auc_high": ("binary cls high", 1),
    "log_posterior": ("multi cls", 1),
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_numbers_are_those_of_the_challenge(dataset, shared):
    original = json.loads((shared / "calochallenge" / FILES[dataset]).read_text())
    ours = submissions(dataset)
    assert [s.name for s in ours[1:]] == [row["submission name"] for row in original[1:]]
    for s, row in zip(ours, original, strict=True):
        for key, (column, factor) in PUBLISHED.items():
            value = row[column]
            assert (value is None) == (key not in s.values)
            if value is not None:
                assert s.values[key] == pytest.approx(value * factor, rel=1e-5)
        for key, column in (("layer_energy", "sep E layer"), ("width_r", "sep EC r std"), ("centre_x", "sep EC eta")):
            layers = np.array(row[column], dtype=float)
            np.testing.assert_allclose(s.layers[key], layers.mean(axis=0) if layers.ndim == 2 else layers, rtol=1e-5)
            assert s.values[key] == pytest.approx(np.nanmean(layers), rel=1e-5)


def test_correlations_are_distances_from_the_matrix_of_geant4(shared):
    rows = json.loads((shared / "calochallenge" / FILES["ds2"]).read_text())
    # The published matrices are drawn upside down.
    first, last = (np.array(rows[i]["PCC Layer Energies"])[::-1] for i in (0, -1))
    upper = np.triu_indices(45, 1)
    expected = np.abs(last - first)[upper].mean()
    assert submissions("ds2")[-1].values["pearson"] == pytest.approx(expected, rel=1e-5)
    assert "pearson" not in submissions("ds2")[0].values


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_number_has_a_column_and_is_finite(dataset):
    keys = {c.key for c in COLUMNS}
    for s in submissions(dataset):
        assert set(s.values) <= keys
        assert set(s.errors) <= set(s.values)
        assert np.isfinite(list(s.values.values())).all()


def test_known_leaders_lead():
    lines = {line.name: line.entries for line in compare("ds2", {}).lines}
    assert lines["CaloDREAM"]["fpd"].rank == 1
    assert lines["CaloScore"]["fpd"].rank == 2
    assert lines["CaloDREAM"]["log_posterior"].rank == 1
    assert lines["MDMA"]["cpu_ms_1"].rank == 1
    assert lines["Geant4"]["fpd"].rank is None
    assert "cpu_ms_1" not in lines["Geant4"]


def test_our_numbers_take_their_place():
    standing = compare("ds2", {"fast": {"cpu_ms_1": 1.0}, "slow": {"cpu_ms_1": 1e9, "auc_low": 0.55}})
    lines = {line.name: line for line in standing.lines}
    assert lines["fast"].ours
    assert lines["fast"].entries["cpu_ms_1"].rank == 1
    assert lines["MDMA"].entries["cpu_ms_1"].rank == 2
    timed = sum("cpu_ms_1" in line.entries for line in standing.lines)
    assert lines["slow"].entries["cpu_ms_1"].rank == timed
    assert lines["slow"].entries["auc_low"].rank == 2
    json.dumps(standing.to_dict(), allow_nan=False)


def test_few_showers_do_not_cost_a_rank():
    """A score at its floor stands where Geant4 does, however few showers there were."""
    score = Score("layer_energy", "separation", "", 0.0165, 0.002, 0.0164, 0.001)
    wide = Score("high-level features", "fpd", "", 0.52, 0.08, 0.47, 0.01)
    linear = Score("layer_energy", "pearson", "", 0.05, 0.01, 0.04, 0.01)
    auc = Score("classifier_high", "auc", "", 0.56, 0.01, 0.5, 0.01)
    standing = compare("ds2", (Findings("calochallenge", "", "", (score, wide)), Findings("p", "", "", (linear, auc))))
    entries = standing.lines[1].entries
    geant4 = standing.lines[0].entries
    assert entries["layer_energy"].value == 0.0165
    assert entries["layer_energy"].carried == pytest.approx(geant4["layer_energy"].value + 1e-4)
    assert entries["layer_energy"].rank == 1
    assert entries["layer_energy"].rank_range[0] == 1
    assert entries["layer_energy"].rank_range[1] > 3
    assert entries["fpd"].carried == pytest.approx(geant4["fpd"].value + 0.05)
    assert entries["pearson"].carried == pytest.approx(0.03)
    assert entries["auc_high"].carried == 0.56
    assert entries["auc_high"].rank == 2


def test_columns_near_geant4_are_the_best():
    standing = compare("ds2", {"density": submissions("ds2")[0].values["density"]})
    assert standing.lines[1].entries["density"].rank == 1


def test_numbers_without_error_have_one_rank():
    entry = compare("ds3", {"cpu_ms_1": 50.0}).lines[1].entries["cpu_ms_1"]
    assert entry.rank_range == (entry.rank, entry.rank)


def test_shares_are_carried_in_proportion():
    score = Score("voxels", "coverage", "", 0.48, 0.01, 0.96, 0.01, sense="high")
    entry = compare("ds2", [score]).lines[1].entries["coverage"]
    assert entry.carried == pytest.approx(submissions("ds2")[0].values["coverage"] / 2)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="known data sets: ds1-photons"):
        submissions("ds4")
    with pytest.raises(ValueError, match="no published column 'speed'"):
        compare("ds2", {"speed": 3.0})
