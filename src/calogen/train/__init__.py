"""The one training entry for any stage of any system."""

from calogen.train.errors import TrainingError
from calogen.train.fit import fit
from calogen.train.plan import Plan
from calogen.train.report import StageReport
from calogen.train.stage import Batch, LearnedStage, SolvedStage, Stage

__all__ = ["Batch", "LearnedStage", "Plan", "SolvedStage", "Stage", "StageReport", "TrainingError", "fit"]
