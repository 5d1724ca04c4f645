"""The page of codebooks: what is drawn is what was counted, and names stay text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calogen.evaluate.codebook_scores import CodebookScore, CodebookStudy, CodedHits, score
from calogen.report.codebooks import colours, columns, residual_figure, row, width_figure, write_codebooks


def hits(width: float, n: int = 12, each: int = 400) -> CodedHits:
    """Hits that come back with normal residuals."""
    rng, p = np.random.default_rng(7), n * each
    place = rng.integers(0, 30, (p, 3)).astype(float)
    decoded = place + rng.normal(0, width, (p, 3))
    energy = rng.exponential(1e-3, p) + 1e-4
    return CodedHits(
        shower=np.repeat(np.arange(n), each),
        place=place,
        decoded=decoded,
        settled=np.rint(decoded),
        energy=energy,
        decoded_energy=energy * np.exp(rng.normal(0, 0.3 * width, p)),
        moved=rng.binomial(each, 0.1, n),
        outside=np.zeros(n, dtype=int),
        code=rng.integers(0, 400, p),
        loss=np.full(p, width),
        squared_error=np.full(p, width),
    )


@pytest.fixture(scope="module")
def made() -> CodebookStudy:
    fit = {"steps": 9, "seconds": 60.0, "train_loss": 1.0, "best_loss": None, "parameters": 1234}
    sizes = [512 * 2**k for k in range(8)]
    scores: list[CodebookScore] = [
        score(hits(2.0 / (k + 1)), size, 5.0, name=f"{size:,}", training=fit, training_usage=(0.5, 9.0))
        for k, size in enumerate(sizes)
    ]
    scores.append(score(hits(1.1), 4096, 5.0, name="<script>mine"))
    return CodebookStudy("omnijet", "box-30", "truth.h5", 12, tuple(scores), {"layer": 0.5}, ("a note",), {"seed": 0})


def test_drawn_densities_are_what_was_counted(made: CodebookStudy) -> None:
    for axes, key in zip(residual_figure(made).axes, ("x", "y", "layer", "ln_energy"), strict=True):
        assert len(axes.patches) == len(made.scores)
        for patch, one in zip(axes.patches, [*made.trained, *made.given], strict=True):
            values, edges, _ = patch.get_data()
            inside = (edges[:-1] >= -axes.get_xlim()[1] - 1e-9) & (edges[1:] <= axes.get_xlim()[1] + 1e-9)
            drawn = np.nansum((values * np.diff(edges))[inside])
            sigma = one.before[key].sigma.value
            expected = 1.0 if axes.get_xlim()[1] > 4 * sigma else 0.9
            assert expected - 0.12 < drawn <= 1.0 + 1e-9


def test_errors_and_targets_are_drawn(made: CodebookStudy) -> None:
    layer = width_figure(made).axes[2]
    points = layer.containers[0]
    assert [round(y, 6) for y in points.lines[0].get_ydata()] == [
        round(s.before["layer"].sigma.value, 6) for s in made.trained
    ]
    assert points.has_yerr
    assert any(np.allclose(line.get_ydata(), 0.5) for line in layer.lines)
    assert [t.get_text() for t in layer.get_xticklabels()][-1] == "65,536"


def test_every_tokenizer_has_a_colour_of_its_own(made: CodebookStudy) -> None:
    assert len(set(colours(made).values())) == len(made.scores)


def test_the_page_holds_all_and_names_stay_text(made: CodebookStudy, tmp_path: Path) -> None:
    page = write_codebooks(made, tmp_path).read_text(encoding="utf-8")
    assert "&lt;script&gt;mine (4,096)" in page
    assert "<script" not in page
    assert "a note" in page
    assert all(len(row(s)) == len(columns()) for s in made.scores)
    found = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [CodebookScore.from_dict(s) for s in found["scores"]] == list(made.scores)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "scores.json"]


def test_states_alone_have_a_page(made: CodebookStudy, tmp_path: Path) -> None:
    alone = replace(made, scores=tuple(made.given), targets={})
    assert "were trained on the same showers" not in write_codebooks(alone, tmp_path).read_text(encoding="utf-8")
