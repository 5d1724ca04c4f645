"""Judging one file of showers against another, whoever made them."""

from calogen.evaluate.metrics import Score
from calogen.evaluate.protocol import Evaluation, evaluate

__all__ = ["Evaluation", "Score", "evaluate"]
