"""How many accelerators this machine shows. Imports torch only when asked."""

from __future__ import annotations


def num_accelerators() -> int:
    """Visible accelerators (GPUs), 0 on a machine with none."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def num_processes(asked: int | None) -> int:
    """Processes to train with on this machine: those asked for, or one an accelerator, or one."""
    return asked if asked is not None else max(1, num_accelerators())
