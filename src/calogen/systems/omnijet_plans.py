"""How the stages of OmniJet-alpha_C are fitted by default."""

from __future__ import annotations

from dataclasses import replace

from calogen.systems.hit_counts import PLAN as COUNTS_PLAN
from calogen.systems.hit_tokenizer_stage import PLANS as TOKENIZER_PLANS
from calogen.train import Plan

DESK_PLANS: dict[str, Plan] = {
    # Sized for one CPU core and some thousand showers of 800 hits: 0.4 s a tokenizer step, 0.7 s a generator step.
    "tokenizer": replace(
        TOKENIZER_PLANS["desk"],
        steps=2500,
        batch_size=4,
        learning_rate=4e-3,
        validate_every=500,
        validation_showers=100,
    ),
    "groups": Plan(steps=1),
    "calibrate": Plan(steps=1),
    "counts": COUNTS_PLAN,
    "generator": Plan(
        steps=4000,
        batch_size=4,
        optimizer="adamw",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=200,
        betas=(0.9, 0.95),
        weight_decay=1e-2,
        grad_clip=1.0,
        ema="constant",
        ema_decay=0.995,
        validate_every=500,
        validation_showers=100,
    ),
    "ranks": Plan(steps=1),
    "drafts": Plan(
        steps=400,
        batch_size=2,
        optimizer="adamw",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=20,
        betas=(0.9, 0.95),
        grad_clip=1.0,
        validate_every=200,
        validation_showers=50,
    ),
}

PUBLISHED_PLANS: dict[str, Plan] = {
    "tokenizer": TOKENIZER_PLANS["published"],
    # arXiv:2501.05534: 106 epochs of 6,000 batches of 72. Its Lookahead around RAdam is left out here.
    "generator": Plan(
        steps=636_000,
        batch_size=72,
        optimizer="radam",
        learning_rate=1e-3,
        betas=(0.95, 0.999),
        weight_decay=1e-2,
        grad_clip=1.0,
    ),
}
