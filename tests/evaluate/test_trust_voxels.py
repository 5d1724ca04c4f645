"""Can the judge tell, of voxels? Geant4 electrons with known damages: the right scores move, and no wrong one does."""

import numpy as np
import pytest

from calogen import Voxels
from calogen.data.formats import read
from calogen.evaluate.calochallenge import observe_voxels, separation_findings
from calogen.evaluate.challenge_distances import correlation_findings
from calogen.evaluate.frechet_scores import frechet_score
from calogen.evaluate.high_level import classifier_features
from calogen.evaluate.memorisation import repeats
from calogen.evaluate.metrics import Score
from calogen.evaluate.neighbours import log_voxels, prdc
from calogen.evaluate.voxel_sample import VoxelPair

N = 1700
FEW = 500  # where chance plays no part
LAYER = 15
SHOWERS_SHUFFLED = 20
PER_LAYER = ("layer_energy", "sparsity", *(f"{kind}_{axis}" for kind in ("centre", "width") for axis in "xyr"))

Key = tuple[str, str]


def like(voxels: Voxels, energy: np.ndarray) -> Voxels:
    return Voxels(energy, voxels.incident, voxels.detector)


@pytest.fixture(scope="module")
def samples(shared) -> tuple[Voxels, Voxels]:
    """Truth and model: Geant4 electrons of 1 to 100 GeV in data set 2, not of the same particles."""
    voxels = read(shared / "data" / "electron-par04.h5", stop=2 * N)
    order = np.random.default_rng(1).permutation(2 * N)
    return voxels[np.sort(order[:N])], voxels[np.sort(order[N:])]


def judged(generated: Voxels, truth: Voxels) -> dict[Key, Score]:
    pair = VoxelPair.of(observe_voxels(generated), observe_voxels(truth), seed=1, replicas=60)
    found = (separation_findings(pair), correlation_findings(pair))
    return {(s.observable, s.metric): s for f in found for s in f.scores}


@pytest.fixture(scope="module")
def undamaged(samples) -> dict[Key, Score]:
    truth, model = samples
    return judged(model, truth)


def in_layer(voxels: Voxels, layer: int) -> slice:
    first = voxels.detector.first_cell
    return slice(first[layer], first[layer + 1])


def layers_shuffled(voxels: Voxels) -> Voxels:
    """Every layer from another shower of nearly the same energy."""
    rng = np.random.default_rng(3)
    energy, order = voxels.energy.copy(), np.argsort(voxels.incident.energy)
    for layer in range(voxels.detector.n_layers):
        cells = in_layer(voxels, layer)
        for i in range(0, len(order), SHOWERS_SHUFFLED):
            group = order[i : i + SHOWERS_SHUFFLED]
            energy[group, cells] = voxels.energy[rng.permutation(group), cells]
    return like(voxels, energy)


def by_layer(generated: Voxels, truth: Voxels, name: str) -> np.ndarray:
    """Separation power of each layer."""
    pair = VoxelPair.of(observe_voxels(generated), observe_voxels(truth), seed=1, replicas=10)
    curve = next(c for c in separation_findings(pair).curves if c.name == f"{name}_separation")
    return curve.series[1].y


def test_a_layer_scaled_by_two_percent(samples):
    """Against the very same showers only that layer's energy moves.

    2 % shift the logarithm of a layer's energy, which spreads over decades, by 1/60 of its standard deviation, which
    separates by 6e-5; chance separates the challenge's hundred bins of n independent showers by 50/n with a spread of
    7/n: some 350,000 showers would be needed for 3 sigma.
    """
    truth = samples[0][:FEW]
    energy = truth.energy.copy()
    energy[:, in_layer(truth, LAYER)] *= 1.02
    moved = by_layer(like(truth, energy), truth, "layer_energy")
    assert np.flatnonzero(moved).tolist() == [LAYER]
    for name in ("centre_x", "width_r"):  # but for cells that 2 % lift above the threshold
        assert by_layer(like(truth, energy), truth, name).max() < 0.02
    assert judged(like(truth, energy), truth)["layer_energy", "pearson"].value < 1e-4


def test_energies_scaled_by_one_percent(samples, undamaged):
    """The response moves, and nothing else by more than its chance."""
    truth, model = samples
    found = judged(like(model, 1.01 * model.energy), truth)
    assert undamaged["energy_ratio", "separation"].indistinguishable
    assert found["energy_ratio", "separation"].significance > 3
    for key in found.keys() - {("energy_ratio", "separation")}:
        before, after = undamaged[key], found[key]
        assert abs(after.value - before.value) < before.error, key


def test_five_percent_of_hits_dropped(samples, undamaged):
    """The response and sparsity move; centres and correlations do not beyond their chance."""
    truth, model = samples
    dropped = like(model, np.where(np.random.default_rng(2).random(model.energy.shape) < 0.05, 0, model.energy))
    found = judged(dropped, truth)
    assert found["energy_ratio", "separation"].significance > 3
    # One cell of twenty in layers that often have fewer: some 2,800 showers for 3 sigma.
    assert found["sparsity", "separation"].significance > 2
    for key in [(name, "separation") for name in ("centre_x", "centre_y", "centre_r")] + [("layer_energy", "pearson")]:
        assert abs(found[key].value - undamaged[key].value) < 2 * undamaged[key].error, key


def test_layers_shuffled_between_showers(samples, undamaged):
    """Every histogram of a layer, and of voxels, stays as it was; correlations and totals do not."""
    truth, model = samples
    shuffled = layers_shuffled(model)
    found = judged(shuffled, truth)
    for name in (*PER_LAYER, "voxel_energy"):
        before, after = undamaged[name, "separation"], found[name, "separation"]
        assert after.value == pytest.approx(before.value, rel=1e-9), name
    assert found["layer_energy", "pearson"].significance > 3
    assert found["energy_ratio", "separation"].significance > 3
    # Of the logarithms of the layers alone; some 2,000 showers for 3 sigma, of all 362 features many more.
    layers = slice(1, 1 + truth.detector.n_layers)
    before, after = (
        frechet_score(*(classifier_features(v).values[:, layers] for v in (truth, m))) for m in (model, shuffled)
    )
    assert before.indistinguishable
    assert after.significance > 2
    assert after.value - before.value > 2 * after.error


def test_every_other_shower_twice(samples):
    """Repeats and coverage tell; histograms are exactly those of half the showers, and as good as half as many are."""
    truth, model = samples
    half, twice = model[::2], model[np.repeat(np.arange(0, N, 2), 2)]
    found, of_half = judged(twice, truth), judged(half, truth)
    for key, score in found.items():
        assert score.value == pytest.approx(of_half[key].value, rel=1e-6), key
        assert of_half[key].significance < 3, key
    true_features = classifier_features(truth).values[:, 1:]
    for m, repeated in ((model, False), (twice, True)):
        share = repeats(classifier_features(m).values[:, 1:], true_features)
        assert (share.significance > 10) is repeated
    # m of n different showers leave a true one uncovered if its five nearest of both are true: 1 - (n / (n + m))^5.
    true_voxels = log_voxels(truth[:800].energy)
    before, after = (prdc(true_voxels, log_voxels(m[:800].energy)) for m in (model, twice))
    assert before.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert after.coverage == pytest.approx(1 - (2 / 3) ** 5, abs=0.04)
    assert after.density == pytest.approx(before.density, abs=0.1)
