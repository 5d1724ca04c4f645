"""Calibration by kind of particle: how much of what is drawn the readout should see, layer by layer."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.systems.particles import KINDS, is_hadronic, kinds_of

Quantity = Literal["occupancy", "energy"]


class Seen(NamedTuple):
    """Per layer [N, L] of N showers: what a model draws (points or energy), and what the readout sees of it."""

    drawn: NDArray[Any]
    seen: NDArray[Any]


class KindCalibration(nn.Module):
    """Factors on drawn points and energies, so that the readout sees the part of them that it sees of Geant4's.

        factor_l(kind, E) = layer_l(electromagnetic or hadronic) · exp(a_kind + b_kind ln E)

    Compared are the shares seen / drawn, not sums: those of a few hundred hadrons fluctuate by ten percent, while the
    share of its points that light a cell hardly differs from shower to shower. What is drawn is the flows' own matter.

    Args:
        layers: L.
    """

    centre: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("centre", torch.tensor(0.0, dtype=torch.float64))
        for quantity in ("occupancy", "energy"):
            self.register_buffer(f"{quantity}_layer", torch.ones(2, layers, dtype=torch.float64))
            self.register_buffer(f"{quantity}_line", torch.zeros(len(KINDS), 2, dtype=torch.float64))

    def set_scale(self, incident: Incident) -> None:
        """Take the middle of ln E of training particles and forget earlier factors."""
        self.centre.fill_(float(np.log(incident.energy).mean()))
        for quantity in ("occupancy", "energy"):
            self._layer(quantity).fill_(1.0)
            self._line(quantity).zero_()

    def _layer(self, quantity: str) -> Tensor:
        return getattr(self, f"{quantity}_layer")

    def _line(self, quantity: str) -> Tensor:
        return getattr(self, f"{quantity}_line")

    def factor(self, quantity: Quantity, incident: Incident) -> NDArray[np.float64]:
        """Factors [N, L] on the points (occupancy) or energies drawn for incident particles."""
        kinds = kinds_of(incident.pdg)
        line = self._line(quantity).cpu().numpy()[kinds]
        along = np.exp(line[:, 0] + line[:, 1] * self._log_energy(incident))
        factor: NDArray[np.float64] = along[:, None] * self._layer(quantity).cpu().numpy()[_group(incident)]
        return factor

    def _log_energy(self, incident: Incident) -> NDArray[np.float64]:
        log: NDArray[np.float64] = np.log(incident.energy.astype(np.float64)) - float(self.centre)
        return log

    def improve(self, quantity: Quantity, incident: Incident, generated: Seen, truth: Seen) -> float:
        """One step of the fit, from generated and true showers of the same particles.

        `generated.drawn` is before these factors. Returns the largest relative change of what a kind has in all.
        """
        layer, group = self._layer(quantity), _group(incident)
        for g in np.unique(group):
            rows = group == g
            step = _ratio(_part(generated, rows), _part(truth, rows), per_layer=True)
            layer[int(g)] *= torch.from_numpy(step).to(layer)
            generated = generated._replace(seen=np.where(rows[:, None], generated.seen * step, generated.seen))
        moved, kinds, log = 0.0, kinds_of(incident.pdg), self._log_energy(incident)
        for k in np.unique(kinds):
            rows = np.flatnonzero(kinds == k)
            if len(rows) >= FEWEST_SHOWERS:
                line = _line_of(generated, truth, rows, log)
                self._line(quantity)[int(k)] += torch.from_numpy(line).to(layer)
                moved = max(moved, abs(float(line[0])))
        return moved


def _group(incident: Incident) -> NDArray[np.int64]:
    """0 for electromagnetic showers, 1 for the others [N]."""
    return is_hadronic(incident.pdg).astype(np.int64)


def _part(of: Seen, rows: NDArray[Any]) -> Seen:
    return Seen(of.drawn[rows], of.seen[rows])


def _ratio(generated: Seen, truth: Seen, *, per_layer: bool) -> NDArray[np.float64]:
    """True share seen over generated, of sums; layers with little lean on the share of all."""
    axis = 0 if per_layer else None
    shares = []
    for of in (generated, truth):
        drawn, seen = of.drawn.sum(axis), of.seen.sum(axis)
        lean = LEAN * of.drawn.sum() / of.drawn.shape[1]
        all_ = of.seen.sum() / max(of.drawn.sum(), TINY)
        shares.append((seen + lean * all_) / np.maximum(drawn + lean, TINY))
    ratio = np.divide(shares[1], shares[0], out=np.ones_like(shares[0]), where=np.asarray(shares[0]) > 0)
    kept: NDArray[np.float64] = np.clip(np.where(ratio > 0, ratio, 1.0), 1 / LARGEST_STEP, LARGEST_STEP)
    return kept


def _line_of(
    generated: Seen, truth: Seen, rows: NDArray[np.int64], log_energy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """a and b of ln ratio = a + b ln E, from groups of showers alike in energy; b is 0 with few groups."""
    groups = np.array_split(rows[np.argsort(log_energy[rows], kind="stable")], max(1, len(rows) // A_GROUP))
    ratios = np.log([float(_ratio(_part(generated, g), _part(truth, g), per_layer=False)) for g in groups])
    at = np.array([log_energy[g].mean() for g in groups])
    if len(groups) < FEWEST_GROUPS:
        return np.array([ratios.mean(), 0.0])
    weight = np.sqrt([truth.seen[g].sum() + generated.seen[g].sum() for g in groups])
    slope, constant = np.polyfit(at, ratios, 1, w=weight)
    return np.array([constant, slope])


FEWEST_SHOWERS = 20
"""With fewer of a kind its factors stay those of its group."""
A_GROUP, FEWEST_GROUPS = 40, 4
"""Showers whose sums are compared together, and how many such groups a slope in energy needs."""
LEAN = 0.02
"""What the share of all layers counts for in each, in mean layers: the last layers have a handful of points."""
LARGEST_STEP = 1.5
"""A factor changes by no more in one round: an untrained model must not ask for a thousand times its points."""
TINY = 1e-30
