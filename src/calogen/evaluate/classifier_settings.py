"""What a classifier is and how it is trained: the published settings, and small ones for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from calogen.networks.classifiers import Dnn, Resnet3d


@dataclass(frozen=True)
class ClassifierSettings:
    """Network, preparation of its inputs, training and split of one classifier.

    Raises:
        ValueError: shares that leave no third sample, sizes that are not positive, or a ResNet without its grid.
    """

    network: Literal["dnn", "resnet3d"] = "dnn"
    hidden: tuple[int, ...] = (2048, 2048, 2048)  # widths of the dense network
    slope: float = 0.01  # of its LeakyReLU below zero
    dropout: float = 0.0  # share of its hidden values set to zero while training
    grid: tuple[int, int, int] | None = None  # voxels of the ResNet along layers, angle and radius
    planes: tuple[int, int, int, int] = (32, 64, 64, 128)  # channels of its stages
    # Inputs of mean 0 and deviation 1: of both training parts, or of the truth's; "whiten" of both and uncorrelated,
    # so that small differences of inputs that vary together are seen as well as the inputs themselves.
    standardize: Literal["none", "all", "truth", "whiten"] = "none"
    learning_rate: float = 2e-4  # Adam
    weight_decay: float = 0.0  # decoupled (AdamW)
    batch: int = 1000  # showers
    epochs: int = 50
    patience: int = 10  # epochs without a lower validation loss after which training ends
    validation_share: float = 0.2  # decides on the best epoch and calibrates
    test_share: float = 0.2  # the third sample, which gives the scores; the rest trains

    def __post_init__(self) -> None:
        train = 1 - self.validation_share - self.test_share
        if not (0 < self.validation_share < 1 and 0 < self.test_share < 1 and train > 0.01):
            raise ValueError(
                f"validation_share={self.validation_share} and test_share={self.test_share} leave {train:.2g} of the "
                "showers for training; choose shares that add up to less than one"
            )
        for name in ("batch", "epochs", "patience", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} of the classifier must be positive")
        if self.network == "resnet3d" and self.grid is None:
            raise ValueError("a ResNet needs grid=(layers, angles, radii), such as (45, 16, 9) of CaloChallenge 2")

    @property
    def folds(self) -> int:
        """How many repeats have third samples without a common shower."""
        return max(1, int(1 / self.test_share + 1e-9))

    def build(self, inputs: int, outputs: int) -> nn.Module:
        """The untrained network for rows of `inputs` values.

        Raises:
            ValueError: rows that do not fit the grid.
        """
        if self.network == "dnn" or self.grid is None:
            return Dnn(inputs, self.hidden, outputs, slope=self.slope, dropout=self.dropout)
        expected = 1 + self.grid[0] * self.grid[1] * self.grid[2]
        if inputs != expected:
            raise ValueError(
                f"rows have {inputs} values; the grid {'x'.join(map(str, self.grid))} needs {expected}: the logarithm "
                "of the incident energy and the voxels"
            )
        return Resnet3d(self.grid, self.planes, outputs=outputs)


PRESETS: dict[str, ClassifierSettings] = {
    # CaloChallenge (arXiv:2410.21611; code/evaluate.py): three layers of 2048, Adam 2e-4, batch 1000, 50 epochs, no
    # standardisation. There in float64 and with the epoch of the best accuracy; here in float32 and with that of the
    # lowest validation loss.
    "published-low": ClassifierSettings(),
    "published-high": ClassifierSettings(),
    # Same training, ResNet-18 of 3D convolutions (code/resnet.py); data set 2, for data set 3 set grid=(45, 50, 18).
    "published-resnet": ClassifierSettings(network="resnet3d", grid=(45, 16, 9)),
    # CaloHadronic, five observables: widths as in the text; its code trains 4, 4.
    "calohadronic": ClassifierSettings(
        hidden=(8, 8), standardize="all", learning_rate=1e-3, batch=32, epochs=100, patience=100
    ),
    # CaloClouds 2 (arXiv:2309.05704), 25 observables in units of Geant4's deviations, ten folds.
    "caloclouds2": ClassifierSettings(
        hidden=(32, 16),
        slope=0.2,
        standardize="truth",
        learning_rate=1e-3,
        batch=256,
        epochs=10,
        patience=10,
        validation_share=0.1,
        test_share=0.1,
    ),
    # Sized for a CPU and for thousands of showers: seconds on tens of features, minutes on thousands of voxels.
    "fast": ClassifierSettings(
        hidden=(64, 64),
        dropout=0.1,
        standardize="all",
        learning_rate=2e-3,
        weight_decay=1e-2,
        batch=128,
        epochs=100,
    ),
    # The same for thousands of voxels over the incident energy, whose sizes mean something: not standardised.
    "fast-low": ClassifierSettings(
        hidden=(64, 64),
        dropout=0.1,
        learning_rate=2e-3,
        weight_decay=1e-2,
        batch=128,
        epochs=40,
        patience=6,
    ),
    # The same for hundreds of features that vary together, as energies of layers do.
    "fast-high": ClassifierSettings(
        hidden=(64, 64),
        dropout=0.5,
        standardize="whiten",
        learning_rate=3e-4,
        weight_decay=0.1,
        batch=128,
        epochs=60,
    ),
    "fast-resnet": ClassifierSettings(
        network="resnet3d",
        grid=(45, 16, 9),
        planes=(8, 16, 16, 32),
        learning_rate=1e-3,
        batch=128,
        epochs=8,
        patience=3,
    ),
}
"""Settings by name; `dataclasses.replace` changes one.

What the small ones lose (benchmarks/classifiers.py: AUC of one training, +- 0.02, and CPU seconds on one thread): 1,750
Geant4 electrons of 1 to 100 GeV in data set 2, against as many others with energies 6 % too large, which the ratio of
visible to incident energy alone recognises with 0.81.

    high            fast-high    0.67,  4 s    published-high    0.47,  26 s
    low             fast-low     0.66,  4 s    published-low     0.65, 145 s
    low_normalised  fast-low     0.48,  1 s    published-low     not measured
    resnet          fast-resnet  0.51, 21 s    published-resnet  0.51,  84 s (8 of 50 epochs)

With so few showers nothing is lost: the published networks were made for 120,000, where this was not measured.
"""
