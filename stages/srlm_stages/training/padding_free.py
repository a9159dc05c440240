"""Models that are handed padded rows and compute without the padding: all rows one after the other, as one row.

The parts of a model that look at one token at a time do not mind. Attention does: transformers' kernels for flash
attention know where rows begin, those of PyTorch are asked row by row here, or by PyTorch's own flash kernel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

#: Name of `attend` among transformers' attention kernels.
ATTENTION = "srlm_rows"
#: Kernels of transformers that know where rows begin.
NATIVE = ("flash_attention_2", "flash_attention_3")
#: Decoders in which attention alone looks at other tokens, and which hand on where rows begin.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "granite", "gemma")
#: Rotary embeddings that depend on the longest row of a batch.
BATCH_DEPENDENT = ("dynamic", "longrope")
#: What the flash kernel takes.
FLASH_TYPES, FLASH_HEAD = (torch.float16, torch.bfloat16), 256


def enable(model: Any, longest: int) -> bool:
    """Whether `model` can compute rows of up to `longest` tokens without padding; it is then made ready to."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    rotary = getattr(config, "rope_parameters", None) or {}
    able = (
        config.model_type in FAMILIES
        and (kinds == {"full_attention"} or (kinds == {"sliding_attention"} and (window or 0) >= longest))
        and (window is None or window >= longest or not getattr(config, "use_sliding_window", True))
        and rotary.get("rope_type", "default") not in BATCH_DEPENDENT
    )
    if not able or model.config._attn_implementation not in ("sdpa", *NATIVE):
        return False
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, attend)
        model.set_attn_implementation(ATTENTION)
    return True


class PaddingFree:
    """Stands for a model with TRL's fused head: takes padded rows and answers as the model does."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *, input_ids: Any, attention_mask: Any, labels: Any, **options: Any) -> Any:
        """input_ids, attention_mask, labels: [R, L], padded on the right. The answer's figures of tokens: [R, L - 1],
        0 where labels are -100."""
        real = attention_mask.bool()
        taken = real.flatten().nonzero().squeeze(1)

        def flat(tensor: Any) -> Any:
            return tensor.flatten()[taken][None]

        lengths = attention_mask.sum(1)
        ends = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        found = self._model(
            input_ids=flat(input_ids),
            position_ids=flat(attention_mask.cumsum(1) - 1),
            shift_labels=flat(F.pad(labels[:, 1:], (0, 1), value=-100)),
            cu_seq_lens_q=ends,
            cu_seq_lens_k=ends,
            max_length_q=real.shape[1],
            max_length_k=real.shape[1],
            **options,
        )
        whole = {
            name: value.new_zeros(real.shape).masked_scatter(real, value[0])[:, :-1]
            if isinstance(value, torch.Tensor) and value.dim() == 2
            else value
            for name, value in found.items()
        }
        return type(found)(**whole)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    dropout: float = 0.0,
    scaling: float | None = None,
    **unread: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row. query: [1, H, N, D], key and value: [1, K, N, D]; answers [1, N, H, D].

    cu_seq_lens_q: where rows begin and the last one ends; without it the tensors have a row each, padded on the right.
    """
    if cu_seq_lens_q is None:
        answer = sdpa_attention_forward(module, query, key, value, None, dropout, scaling, is_causal=True)[0]
        return answer, None
    kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    head = query.shape[-1]
    if query.is_cuda and kind in FLASH_TYPES and head == value.shape[-1] <= FLASH_HEAD and head % 8 == 0:
        rows = (tensor[0].transpose(0, 1).to(kind) for tensor in (query, key, value))
        found = torch.ops.aten._flash_attention_forward(
            *rows, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, dropout, True, False, scale=scaling
        )
        return found[0][None], None
    lengths = [end - start for start, end in pairwise(cu_seq_lens_q.tolist())]
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    answers = [sdpa_attention_forward(module, *row, None, dropout, scaling, is_causal=True)[0] for row in parts]
    return torch.cat(answers, dim=1), None
