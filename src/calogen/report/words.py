"""Names of the judge's keys in readers' words: metrics, and sections of a detector."""

from __future__ import annotations

import re

METRICS = {
    "jsd": "JS divergence",
    "wasserstein": "Wasserstein",
    "wasserstein_slices": "Wasserstein, mean of slices",
    "sliced_wasserstein": "sliced Wasserstein",
    "quantile_kl": "quantile KL",
    "quantile_kl_slices": "quantile KL, mean of slices",
    "auc": "AUC",
    "fpd": "FPD",
    "kpd": "KPD",
    "pearson": "Pearson",
    "quantile_68_ratio": "68 % quantile, ratio",
    "width_ratio": "width, ratio",
    "median_difference": "median, difference",
    "training_neighbours": "nearest neighbour in the training set",
    "training_distance": "nearer to the training set",
    "log_posterior": "log-posterior",
    "rms": "RMS",
}
_KEYS = re.compile(rf"\b({'|'.join(key for key in METRICS if '_' in key)})\b")
_SECTION = re.compile(r"(?<![\w/.-])([eh])cal(?![\w/-]|\.\w)", re.IGNORECASE)
"""The sections `ecal` and `hcal` as words, not as parts of names of files or keys."""


def metric_name(metric: str) -> str:
    """A metric in words.

    >>> metric_name("quantile_kl_slices"), metric_name("some_distance")
    ('quantile KL, mean of slices', 'some distance')
    """
    return METRICS.get(metric, metric.replace("_", " "))


def title_of(text: str) -> str:
    """A title as it stands on the page, its first letter a capital.

    >>> title_of("ecal: hits"), title_of("MIP peak, hcal")
    ('ECal: hits', 'MIP peak, HCal')
    """
    text = _SECTION.sub(lambda m: f"{m[1].upper()}Cal", text)
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Remarks and definitions with sections and metrics called as they are in titles and tables.

    >>> sentence("repeats: as above. training_distance: in ecal and hcal.")
    'repeats: as above. nearer to the training set: in ECal and HCal.'
    """
    text = _KEYS.sub(lambda m: METRICS[m[1]], text)
    return _SECTION.sub(lambda m: f"{m[1].upper()}Cal", text)
