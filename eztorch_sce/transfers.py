"""Copies between the host and its GPU: none that the host waits for, or a single one."""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU, or of the device, on the device. The host does not wait for a GPU to receive it."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of any shapes and types on the CPU; those on a GPU in one copy, so the host waits for it once."""
    on_device = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if not on_device:
        return list(tensors)
    raw = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in on_device]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    copies = iter(
        part.clone().view(tensor.dtype).reshape(tensor.shape)  # a clone is aligned for every type
        for part, tensor in zip(parts, on_device, strict=True)
    )
    return [tensor if tensor.device.type == "cpu" else next(copies) for tensor in tensors]
