"""A language-model head for training on CPU: only the tokens that have a loss, in one matrix product.

TRL scores tokens in vocabulary tiles with a kernel made for GPUs. Its plain-torch stand-in scores prompt and padding
tokens too and multiplies gradients in fp32: on 2 cores that takes most of a step (SmolLM2-135M: 49,152 words).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

#: Larger tables of logits than this are left to TRL's tiles, which need little memory.
MAX_LOGITS_BYTES = 512 * 1024 * 1024


def install() -> None:
    """Make TRL's fused head use `AnswerLogProbs` in this process."""
    from trl.trainer import utils

    tiles = utils._ChunkedLogProbFunction
    utils._ChunkedLogProbFunction = AnswerLogProbs(tiles)
    utils._use_triton = lambda device: True  # read by the head only, as "leave out tokens without loss"


class AnswerLogProbs:
    """Stands for TRL's autograd function."""

    def __init__(self, tiles: Any) -> None:
        self._tiles = tiles

    def apply(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None,
        logit_scale: float,
        outputs: tuple[str, ...],
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probabilities [N] of `targets` [N] given `hidden` [N, H] and `weight` [V, H], and whether each is the
        most likely token. Entropy and mean logit, which nothing here reads, are zero."""
        if hidden.shape[0] * weight.shape[0] * 4 > MAX_LOGITS_BYTES or "log_sum_sq_probs" in outputs:
            result: tuple[torch.Tensor | None, ...] = self._tiles.apply(
                hidden, weight, bias, targets, temperature, chunk_size, softcap, logit_scale, outputs
            )
            return result
        logits = F.linear(hidden, weight, bias).float() * (logit_scale / temperature)
        if softcap is not None:
            logits = softcap * torch.tanh(logits * temperature / softcap) / temperature
        log_probs = -F.cross_entropy(logits, targets, reduction="none")
        with torch.no_grad():
            top = logits.argmax(-1) == targets
            unread = torch.zeros_like(log_probs)
        return log_probs, unread, None, unread, top
