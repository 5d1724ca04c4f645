"""Neural scaling laws of a token generator: a grid of sizes and amounts of data, trained unattended and judged."""

from calogen.scaling_study.request import Request, Size
from calogen.scaling_study.study import study

__all__ = ["Request", "Size", "study"]
