"""Which number types this machine multiplies natively, and what `Auto` therefore means here.

A device without bf16 instructions still computes in bf16: PyTorch then goes through fp32 element by element. On a CPU
with AVX2 alone a matrix product takes 50 times as long as in fp32 (1024 x 1024: 0.2 GFLOP/s against 11).
"""

from __future__ import annotations

from functools import cache

from srlm_contract.spec.pods import DeviceDtype, Dtype
from srlm_contract.spec.training import DevicePrecision, Precision

#: CUDA compute capabilities with bf16 matrix products, and with fast fp16 ones that inference engines support.
CUDA_BF16, CUDA_FP16 = (8, 0), (7, 0)


def has_gpu() -> bool:
    """Whether engines run on a GPU here."""
    import torch

    return bool(torch.cuda.is_available())


@cache
def native_bf16() -> bool:
    """Whether every device of this process multiplies bf16 matrices in hardware."""
    import torch

    if not torch.cuda.is_available():
        return _cpu_multiplies_bf16()
    if torch.version.hip:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _oldest_gpu() >= CUDA_BF16


def training_precision(asked: Precision) -> DevicePrecision:
    """What `training.precision` means on this machine."""
    if asked == "Auto":
        return "BF16Mixed" if native_bf16() else "Float32"
    return asked


def inference_dtype(asked: Dtype) -> DeviceDtype:
    """What `engine.dtype` means on this machine."""
    if asked != "Auto":
        return asked
    if native_bf16():
        return "BFloat16"
    import torch

    return "Float16" if torch.cuda.is_available() and _oldest_gpu() >= CUDA_FP16 else "Float32"


def choice(field: str, asked: str, chosen: str) -> str:
    """A line for the log: which type was chosen and why, or what to do about one that this machine only emulates."""
    if asked == "Auto":
        return f"{field}: {chosen} (Auto: {_device()} {'has' if native_bf16() else 'has no'} bf16 instructions)"
    if chosen in ("BF16Mixed", "BFloat16") and not native_bf16():
        return (
            f"warning: {field} is {asked}, which {_device()} can only emulate, many times slower than fp32: "
            f"set it to Auto or Float32"
        )
    return f"{field}: {chosen}"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "this CPU"


def _oldest_gpu() -> tuple[int, int]:
    import torch

    oldest: tuple[int, int] = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    return oldest


def _cpu_multiplies_bf16() -> bool:
    """oneDNN's answer, which honours ONEDNN_MAX_CPU_ISA; it also says yes where AVX-512 stands in for bf16 products."""
    import torch

    try:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False  # a build without oneDNN, as on macOS
    has = torch.cpu.get_capabilities()
    if has["architecture"] != "x86_64":
        return supported
    return supported and any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
