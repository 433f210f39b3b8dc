"""Transformers: a flash_attn that is not installed, and masks that no real run builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def flash_attention_is_there(fixed: Callable[..., Any], ragged: Callable[..., Any]) -> None:
    """Transformers takes `fixed` and `ragged` for flash_attn's functions and believes the package to be installed."""
    from transformers import modeling_flash_attention_utils as utils

    def always(*args: Any, **kwargs: Any) -> bool:
        return True

    original = utils._lazy_imports

    def lazy_imports(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        if implementation != "flash_attention_2":
            return original(implementation, *args, **kwargs)
        return fixed, ragged, None, utils._pad_input, utils._unpad_input

    utils._lazy_imports = lazy_imports
    utils.is_flash_attn_2_available = always
    matrix: dict[int, Any] = utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX
    matrix[2] |= {"general_availability_check": always, "pkg_availability_check": always, "supported_devices": ((always, "ghost"),)}


def untraced_masks() -> None:
    """Transformers takes a fake tensor for tracing and would build a mask that real runs never build."""
    import transformers.masking_utils

    if hasattr(transformers.masking_utils, "is_tracing"):
        transformers.masking_utils.is_tracing = lambda *args: False
