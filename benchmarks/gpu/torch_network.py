"""A network of odegrad's layers as PyTorch computes it, with the same weights: the peer of a whole network.

TA-BN normalises by the moments of the batch and interpolates gamma and alpha at t, as in training. Images lie (N, C, H, W)
in PyTorch's terms, channels last in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from odegrad import layers
from odegrad.engine.backend import to_host
from torch.nn import functional


def tensors(layer: Any, weights: Any, device: str) -> Any:
    """The weights of a layer as trained tensors, kernels as PyTorch keeps them (`layers.Conv2d` with time included)."""
    if isinstance(layer, layers.Chain):
        return [tensors(part, own, device) for part, own in zip(layer.layers, weights, strict=True)]
    if isinstance(layer, layers.Skip):
        return tensors(layer.inner, weights, device)
    host = {name: to_host(values) for name, values in (weights or {}).items()}
    if "w_t" in host:  # time is the last channel of the image
        axis = 2 if isinstance(layer, layers.Conv2d) else 3
        host["w"] = np.concatenate([host["w"], host.pop("w_t")], axis)
    if "w" in host and host["w"].ndim == 4:
        host["w"] = host["w"].transpose(
            3, 2, 0, 1
        )  # ours (kh, kw, Cin, Cout), transposed (kh, kw, Cout, Cin)
    made = {name: torch.from_numpy(np.ascontiguousarray(v)).to(device) for name, v in host.items()}
    if isinstance(layer, layers.TABatchNorm):
        made["nodes"] = torch.tensor(layer.nodes, dtype=torch.float32, device=device)
    for name, tensor in made.items():
        made[name] = tensor.requires_grad_(name != "nodes")
    return made


def trained(weights: Any) -> list[torch.Tensor]:
    """All trained tensors, in order."""
    parts = weights.values() if isinstance(weights, dict) else weights
    if isinstance(weights, torch.Tensor):
        return [weights] if weights.requires_grad else []
    return [tensor for part in parts for tensor in trained(part)]


def apply(layer: Any, weights: Any, t: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer at time t, in training."""
    if isinstance(layer, layers.Chain):
        for part, own in zip(layer.layers, weights, strict=True):
            x = apply(part, own, t, x)
        return x
    if isinstance(layer, layers.Skip):
        return torch.cat([apply(layer.inner, weights, t, x), x], 1)
    if isinstance(layer, layers.Conv2d):
        return functional.conv2d(
            _with_time(layer, t, x), weights["w"], weights["b"], layer.stride, layer.padding
        )
    if isinstance(layer, layers.ConvTranspose2d):
        return _transposed(layer, weights, _with_time(layer, t, x))
    if isinstance(layer, layers.TABatchNorm):
        return _normalised(layer, weights, t, x)
    if isinstance(layer, layers.ReLU):
        return functional.relu(x)
    if isinstance(layer, layers.MaxPool2d):
        return functional.max_pool2d(x, layer.size, layer.stride, layer.padding)
    raise TypeError(f"no counterpart in PyTorch for {type(layer).__name__}")


def _with_time(layer: Any, t: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1]) * t], 1) if layer.with_time else x


def _transposed(layer: Any, weights: Any, x: torch.Tensor) -> torch.Tensor:
    reached = [(n - 1) * layer.stride - 2 * layer.padding + layer.kernel for n in x.shape[2:]]
    more = [wanted - got for wanted, got in zip(layer.size, reached, strict=True)]
    return functional.conv_transpose2d(x, weights["w"], weights["b"], layer.stride, layer.padding, more)


def _normalised(layer: Any, weights: Any, t: Any, x: torch.Tensor) -> torch.Tensor:
    """Interpolated by hats, as odegrad does; batch norm by cuDNN's kernel and an affine map of this moment."""
    nodes = weights["nodes"]
    step = nodes[1] - nodes[0]
    hats = functional.relu(1 - torch.abs(nodes - t) / step)
    gamma, alpha = hats @ weights["gamma"], hats @ weights["alpha"]
    return functional.batch_norm(x, None, None, gamma, alpha, training=True, eps=layer.eps)
