"""How well a tokenizer resolves hits with codebooks of several sizes: figure 1 of OmniJet-alpha_C (arXiv:2501.05534)."""

from calogen.codebook_study.request import SIZES, Request
from calogen.codebook_study.study import FILES, Given, Sample, clear, require_place, study

__all__ = ["FILES", "SIZES", "Given", "Request", "Sample", "clear", "require_place", "study"]
