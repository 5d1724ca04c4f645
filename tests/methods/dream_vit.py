"""The vision transformer of the parity file of bespoke solvers, as a plain function of its weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention, silu


class DreamViT:
    """v(x, t | c) for x [N, 1, Z, A, R] from the weights of the file."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.config, self.w = config, weights
        self.cells = tuple(config["shape"][1:])
        self.patch = tuple(config["patch_shape"])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def positions(self) -> Tensor:
        grids = torch.meshgrid(self.w["lgrid"], self.w["agrid"], self.w["rgrid"], indexing="ij")
        wz, wy, wx = (2 * math.pi * f for f in self.w["pos_embed_freqs"].chunk(3))
        z, y, x = (g.flatten()[:, None] * w for g, w in zip(grids, (wz, wy, wx), strict=True))
        return torch.cat([x.sin(), x.cos(), y.sin(), y.cos(), z.sin(), z.cos()], dim=1)

    def condition(self, t: Tensor, c: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128).to(c)
        angle = t.expand(len(c))[:, None] * frequencies
        waves = torch.cat([angle.cos(), angle.sin()], dim=1)
        time = self.linear("t_embedder.mlp.2", silu(self.linear("t_embedder.mlp.0", waves)))
        return time + self.linear("c_embedder.2", silu(self.linear("c_embedder.0", c)))

    def block(self, k: int, x: Tensor, condition: Tensor) -> Tensor:
        name, heads = f"blocks.{k}", self.config["num_heads"]
        parts = self.linear(f"{name}.adaLN_modulation.1", silu(condition))[:, None].chunk(6, dim=2)
        y = modulated(x, parts[0], parts[1])
        n, length, width = y.shape
        q, k_, v = self.linear(f"{name}.attn.qkv", y).reshape(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k_, v).transpose(1, 2).reshape(n, length, width)
        x = x + parts[2] * self.linear(f"{name}.attn.proj", attended)
        y = gelu(self.linear(f"{name}.mlp.fc1", modulated(x, parts[3], parts[4])), approximate="tanh")
        return x + parts[5] * self.linear(f"{name}.mlp.fc2", y)

    def __call__(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        (z, a, r), (p, q, s) = self.cells, self.patch
        lots = (z // p, a // q, r // s)
        patches = x.reshape(len(x), lots[0], p, lots[1], q, lots[2], s).permute(0, 1, 3, 5, 2, 4, 6)
        y = self.linear("x_embedder", patches.reshape(len(x), math.prod(lots), p * q * s)) + self.positions()
        condition = self.condition(t, c)
        for k in range(self.config["depth"]):
            y = self.block(k, y, condition)
        shift, scale = self.linear("final_layer.adaLN_modulation.1", silu(condition))[:, None].chunk(2, dim=2)
        y = self.linear("final_layer.linear", modulated(y, shift, scale))
        return y.reshape(len(x), *lots, p, q, s).permute(0, 1, 4, 2, 5, 3, 6).reshape(x.shape)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
