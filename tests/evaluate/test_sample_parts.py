"""Parts of the judgement that look at many observables at once: classifiers, distances, repeated showers."""

import dataclasses

import numpy as np
import pytest

from calogen import BOX_30, Showers
from calogen.evaluate.classifier_settings import PRESETS
from calogen.evaluate.collect import collect
from calogen.evaluate.copies import Copies
from calogen.evaluate.findings import Findings
from calogen.evaluate.points import judge_part
from calogen.evaluate.shower_classifier import ShowerClassifier, shower_classifiers, shower_competition
from calogen.evaluate.shower_distances import Distances

QUICK = dataclasses.replace(PRESETS["fast"], epochs=8)


@pytest.fixture(scope="module")
def truth(make_toy) -> Showers:
    return make_toy(500, 301)


@pytest.fixture(scope="module")
def model(make_toy, truth) -> Showers:
    return make_toy(500, 302, incident=truth.incident)


@pytest.fixture(scope="module")
def brighter(model) -> Showers:
    return dataclasses.replace(model, energy=model.energy * np.float32(1.1))


def _score(found: Findings, metric: str):
    return next(s for s in found.scores if s.metric == metric)


def test_distances_see_brighter_showers_only(truth, model, brighter):
    same, changed = (judge_part(Distances(), s, truth, replicas=20) for s in (model, brighter))
    for metric in ("fpd", "sliced_wasserstein"):
        assert _score(same, metric).significance < 3
        assert _score(changed, metric).significance > 3
        assert _score(changed, metric).value > 2 * _score(same, metric).value
    assert {s.metric for s in same.scores} == {"fpd", "kpd", "sliced_wasserstein"} | {
        "precision",
        "recall",
        "density",
        "coverage",
    }


def test_each_shower_twice_is_a_repeat(truth, model):
    half = model[: len(model) // 2]
    twice = Showers.concatenate([half, half])
    assert _score(judge_part(Copies(), model, truth), "repeats").significance < 3
    repeated = _score(judge_part(Copies(), twice, truth), "repeats")
    assert repeated.value == 1
    assert not repeated.indistinguishable


def test_copies_of_the_training_set_are_found(make_toy, truth, model):
    training = make_toy(400, 303)
    known = collect(training, (), keep=0)
    honest = judge_part(Copies(known), model, truth)
    assert _score(honest, "training_neighbours").significance < 3
    assert _score(honest, "training_distance").significance < 3
    copied = judge_part(Copies(known), training, truth)
    assert _score(copied, "training_neighbours").value == 1
    assert _score(copied, "training_distance").value == 1


def test_training_showers_of_another_detector_are_refused(truth, model):
    box = Showers(model.x, model.y, model.layer, model.energy, model.offsets, model.incident, BOX_30)
    with pytest.raises(ValueError, match="same detector"):
        judge_part(Copies(collect(box, (), keep=0)), model, truth)


def test_the_classifier_of_all_observables_names_what_is_wrong(truth, model, brighter):
    part = ShowerClassifier(settings=QUICK, repeats=2)
    same, changed = (judge_part(part, s, truth) for s in (model, brighter))
    assert _score(same, "auc").significance < 3
    assert _score(changed, "auc").significance > 5
    assert _score(changed, "jsd").value > _score(same, "jsd").value
    assert any("visible over incident energy" in note or "energy in" in note for note in changed.notes)
    assert {"classifier_all_weights", "classifier_all_output"} <= {c.name for c in changed.curves}


def test_few_showers_give_a_note_with_the_minimum(truth, model):
    for part, least in ((Distances(), 100), (ShowerClassifier(), 200), (Copies(), 100)):
        found = judge_part(part, model[:60], truth[:60])
        assert not found.scores
        assert str(least) in found.notes[0]


def test_sizes_of_the_networks():
    fast, published = (shower_classifiers(size, 1) for size in ("fast", "published"))
    assert [c.name for c in fast] == [c.name for c in published]
    assert [c.settings.hidden for c in published] == [(2048, 2048, 2048), (32, 16), (8, 8)]


def test_of_two_models_the_better_one_wins(truth, model, brighter):
    observed = {name: collect(s, (), keep=0).observed for name, s in (("good", model), ("bad", brighter))}
    found = shower_competition(observed, collect(truth, (), keep=0).observed, repeats=1)
    values = {s.observable: s.value for s in found.scores}
    assert values["good"] > values["bad"]
