"""How well a tokenizer resolves hits, by the size of its codebook: figure 1 of OmniJet-alpha_C (arXiv:2501.05534)."""

from calogen.codebook_study.folder import FILES, Sample, require_place
from calogen.codebook_study.request import SIZES, Request, code_of, require_tokenizer_keys
from calogen.codebook_study.study import Given, study

__all__ = [
    "FILES",
    "SIZES",
    "Given",
    "Request",
    "Sample",
    "code_of",
    "require_place",
    "require_tokenizer_keys",
    "study",
]
