"""The jobs that `measure_jobs.py` and `everything.py` measure: by name, as a Job file has them."""

from __future__ import annotations

from typing import Any

ALPACA = {"lengths": "alpaca", "max_length": 512}


def job(model: str, rows: int, length: int, gpus: int = 1, **recipe: Any) -> dict[str, Any]:
    return {"model": model, "data": {"seq_len": length} if length else ALPACA, "recipe": {"micro_batch": rows, **recipe}, "gpus": gpus}


def lora(model: str, rows: int, length: int, **recipe: Any) -> dict[str, Any]:
    return job(model, rows, length, **{"method": "lora", "precision": "bf16", **recipe})


def zero(model: str, rows: int, length: int, stage: int, **recipe: Any) -> dict[str, Any]:
    return job(model, rows, length, gpus=2, engine="deepspeed", zero_stage=stage, **recipe)


def of_class(model: str, rows: int, data: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    """A model of the report's other classes, on one GPU."""
    return {"model": model, "data": data, "recipe": {"micro_batch": rows, "precision": "fp16-mixed", **recipe}, "gpus": 1}


QUERY = {"targets": ["query_key_value"]}
JOBS: dict[str, dict[str, Any]] = {
    # The report's techniques on 7B, and what brings their memory down.
    "llama-7b-lora-4x512": lora("llama-7b", 4, 512),
    "llama-7b-full-sgd-4x512": job("llama-7b", 4, 512, precision="bf16", optimizer="sgd"),
    "llama-3.2-3b-full-mixed-fused-2x1024": job("llama-3.2-3b", 2, 1024, optimizer="adamw-fused", recompute="full"),
    "llama-3.2-1b-full-mixed-4x1024": job("llama-3.2-1b", 4, 1024),
    "mistral-7b-lora-2x4096-recompute": lora("mistral-7b", 2, 4096, recompute="full"),
    "qwen2.5-7b-lora-4x1024": lora("qwen2.5-7b", 4, 1024),
    "llama-2-13b-lora-4x512": lora("llama-2-13b", 4, 512),
    "gemma-2-9b-lora-2x1024": lora("gemma-2-9b", 2, 1024),
    "llama-7b-full-adafactor-4x512": job("llama-7b", 4, 512, precision="bf16", optimizer="adafactor"),
    "llama-7b-full-adamw-4x512": job("llama-7b", 4, 512, precision="bf16"),
    "llama-7b-full-fused-4x2048-recompute": job("llama-7b", 4, 2048, precision="bf16", optimizer="adamw-fused", recompute="full"),
    "llama-7b-qlora-4x512": job("llama-7b", 4, 512, method="qlora"),
    "llama-3.2-1b-qlora-4x1024": job("llama-3.2-1b", 4, 1024, method="qlora"),
    "llama-7b-qlora-2x2048-recompute": job("llama-7b", 2, 2048, method="qlora", recompute="full"),
    "llama-7b-lora-16x512-recompute": lora("llama-7b", 16, 512, recompute="full"),
    "llama-7b-lora-1x256": lora("llama-7b", 1, 256),
    "llama-7b-lora-1x2048": lora("llama-7b", 1, 2048),
    "llama-7b-lora-mixed-4x512": lora("llama-7b", 4, 512, precision="bf16-mixed"),
    "llama-7b-lora-alpaca-4": lora("llama-7b", 4, 0, precision="bf16-mixed", lora={"dropout": 0.05}),
    "mistral-7b-lora-1x4096": lora("mistral-7b", 1, 4096),
    "llama-3-8b-lora-2x2048-recompute": lora("llama-3-8b", 2, 2048, recompute="full"),
    "llama-2-13b-lora-1x4096-recompute": lora("llama-2-13b", 1, 4096, recompute="full"),
    "llama-3.2-3b-full-bf16-4x1024-recompute": job("llama-3.2-3b", 4, 1024, precision="bf16", recompute="full"),
    "llama-3.2-1b-full-mixed-16x512": job("llama-3.2-1b", 16, 512),
    "llama-3.2-1b-full-bf16-1x256": job("llama-3.2-1b", 1, 256, precision="bf16"),
    "llama-3.2-1b-full-bf16-4x4096-recompute": job("llama-3.2-1b", 4, 4096, precision="bf16", recompute="full"),
    "llama-3.2-1b-full-bf16-4x2048-selective": job("llama-3.2-1b", 4, 2048, precision="bf16", recompute="selective"),
    "llama-3.2-1b-full-mixed-2x1024x4": job("llama-3.2-1b", 2, 1024, accumulation=4),
    "llama-3.2-1b-full-bf16-alpaca-8": job("llama-3.2-1b", 8, 0, precision="bf16"),
    "llama-3.2-1b-full-fp16-4x1024": job("llama-3.2-1b", 4, 1024, precision="fp16-mixed"),
    "llama-3.2-1b-full-fp32-2x1024": job("llama-3.2-1b", 2, 1024, precision="fp32"),
    "gpt2-xl-full-mixed-4x1024": job("gpt2-xl", 4, 1024),
    "qwen2.5-1.5b-full-bf16-4x1024": job("qwen2.5-1.5b", 4, 1024, precision="bf16"),
    "gemma-2b-full-bf16-2x1024": job("gemma-2b", 2, 1024, precision="bf16"),
    "falcon-7b-lora-2x1024": lora("falcon-7b", 2, 1024, lora=QUERY),
    "llama-3.2-1b-full-8bit-4x1024": job("llama-3.2-1b", 4, 1024, precision="bf16", optimizer="adamw-8bit"),
    # Kernels that are fused.
    "llama-3.2-1b-full-mixed-liger-4x1024": job("llama-3.2-1b", 4, 1024, kernels="liger"),
    "llama-3.2-1b-full-bf16-compiled-4x1024": job("llama-3.2-1b", 4, 1024, precision="bf16", kernels="compile"),
    "llama-2-13b-qlora-4x512-recompute": job("llama-2-13b", 4, 512, method="qlora", recompute="full"),
    # Too large for 80 GB: out of memory is a result.
    "llama-7b-full-mixed-4x512": job("llama-7b", 4, 512),
    # The report's other classes, as the study has them (`membound/study/data/hbm_fine_tuning/jobs`), each on one GPU.
    "bert-large-16x512x4": of_class("bert-large", 16, {"seq_len": 512}, optimizer="lamb", accumulation=4, learning_rate=0.004),
    "t5-large-16x512": of_class("t5-large", 16, {"seq_len": 512}, precision="bf16-mixed", optimizer="adafactor", learning_rate=0.001),
    "gnmt-128x50": of_class("gnmt", 128, {"seq_len": 50}, optimizer="adamw", learning_rate=0.002),
    "resnet-50-256": of_class("resnet-50", 256, {"image_size": 224}, optimizer="sgd-momentum", learning_rate=0.256),
    "ssd-128": of_class("ssd", 128, {"image_size": 300}, optimizer="sgd-momentum", learning_rate=0.0027),
    "mask-rcnn-4": of_class("mask-rcnn", 4, {"image_size": 800}, optimizer="sgd-momentum", learning_rate=0.005),
    "dlrm-8192": of_class("dlrm", 8192, {"samples": True}, precision="bf16-mixed", optimizer="sgd", learning_rate=24.0),
    "ncf-131072": of_class("ncf", 131072, {"samples": True}, optimizer="adamw", learning_rate=0.0045),
    # Two GPUs.
    "2x-llama-3.2-1b-ddp-4x1024": job("llama-3.2-1b", 4, 1024, gpus=2, engine="ddp"),
    "2x-llama-3.2-1b-fsdp-4x1024": job("llama-3.2-1b", 4, 1024, gpus=2, engine="fsdp"),
    "2x-llama-3.2-3b-fsdp-4x1024": job("llama-3.2-3b", 4, 1024, gpus=2, engine="fsdp", recompute="full"),
    "2x-llama-7b-fsdp-bf16-4x1024": job("llama-7b", 4, 1024, gpus=2, engine="fsdp", precision="bf16", optimizer="adamw-fused", recompute="full"),
    "2x-llama-3.2-1b-zero1-4x1024": zero("llama-3.2-1b", 4, 1024, 1),
    "2x-llama-3.2-1b-zero2-4x1024": zero("llama-3.2-1b", 4, 1024, 2),
    "2x-llama-3.2-1b-zero3-4x1024": zero("llama-3.2-1b", 4, 1024, 3),
    "2x-llama-3.2-3b-zero2-4x1024": zero("llama-3.2-3b", 4, 1024, 2, recompute="full"),
    "2x-llama-3.2-3b-zero3-4x1024": zero("llama-3.2-3b", 4, 1024, 3, recompute="full"),
    "2x-llama-3.2-1b-zero1-offload-4x1024": zero("llama-3.2-1b", 4, 1024, 1, offload={"optimizer": "cpu"}),
    "2x-llama-3.2-1b-zero2-offload-4x1024": zero("llama-3.2-1b", 4, 1024, 2, offload={"optimizer": "cpu"}),
    "2x-llama-3.2-1b-zero3-offload-4x1024": zero("llama-3.2-1b", 4, 1024, 3, offload={"optimizer": "cpu", "params": "cpu"}),
    # The report's own techniques at 7B, as far as two GPUs go: 96 GB and more each.
    "2x-llama-7b-zero1-4x512": zero("llama-7b", 4, 512, 1),
    "2x-llama-7b-zero3-offload-4x512": zero("llama-7b", 4, 512, 3, offload={"optimizer": "cpu", "params": "cpu"}, recompute="full"),
}

TWENTY_FOUR = (
    # Two GPUs first: where there are two, they are what is hard to come by.
    "2x-llama-3.2-1b-zero1-4x1024", "2x-llama-3.2-1b-zero2-4x1024", "2x-llama-3.2-1b-zero3-4x1024",
    "2x-llama-3.2-1b-zero1-offload-4x1024", "2x-llama-3.2-1b-zero2-offload-4x1024", "2x-llama-3.2-1b-zero3-offload-4x1024",
    "2x-llama-3.2-1b-fsdp-4x1024", "2x-llama-7b-fsdp-bf16-4x1024", "2x-llama-3.2-1b-ddp-4x1024",
    "llama-3.2-1b-full-mixed-4x1024", "llama-7b-lora-4x512", "llama-3.2-1b-qlora-4x1024", "llama-2-13b-lora-4x512",
    "llama-7b-full-adamw-4x512", "llama-7b-full-fused-4x2048-recompute", "mistral-7b-lora-2x4096-recompute", "llama-7b-lora-1x256",
    "llama-7b-lora-16x512-recompute", "llama-3.2-1b-full-bf16-4x4096-recompute", "llama-3.2-1b-full-mixed-16x512", "llama-7b-lora-alpaca-4",
    "qwen2.5-7b-lora-4x1024", "gpt2-xl-full-mixed-4x1024", "llama-7b-full-adafactor-4x512",
)  # fmt: skip
"""1B to 13B; full, LoRA, QLoRA; recomputation; 256 to 4096 tokens, Alpaca's lengths; 1 to 16 rows; DDP, FSDP2, ZeRO 1 to 3, offloaded and not."""

MORE = (
    "2x-llama-7b-zero1-4x512", "2x-llama-7b-zero3-offload-4x512", "llama-7b-full-mixed-4x512", "llama-7b-qlora-4x512",
    "llama-3.2-3b-full-mixed-fused-2x1024", "gemma-2-9b-lora-2x1024", "llama-2-13b-lora-1x4096-recompute", "llama-7b-full-sgd-4x512",
    "llama-3.2-1b-full-bf16-1x256", "llama-3.2-1b-full-8bit-4x1024", "falcon-7b-lora-2x1024", "llama-3.2-1b-full-fp32-2x1024",
    "llama-3.2-1b-full-mixed-2x1024x4", "llama-2-13b-qlora-4x512-recompute", "llama-3.2-1b-full-bf16-alpaca-8", "2x-llama-3.2-3b-fsdp-4x1024",
)  # fmt: skip
"""Where time is left: the report's own techniques, and kinds of job that the others do not have."""

CLASSES = ("bert-large-16x512x4", "t5-large-16x512", "gnmt-128x50", "resnet-50-256", "ssd-128", "mask-rcnn-4", "ncf-131072")
"""The report's other classes that a card of 80 GB holds: all but DLRM, whose tables take 96 GB, and BLOOM."""

COUNTED = ("llama-3.2-1b-full-mixed-4x1024", "llama-7b-lora-4x512", "llama-7b-full-fused-4x2048-recompute")
"""Whose HBM bytes are counted as well, where that is permitted."""

OVERHEAD = "llama-3.2-1b-full-mixed-4x1024"
"""By which the sampler's own cost is measured."""

TINY: dict[str, dict[str, Any]] = {
    "tiny-full-2x256": job("tiny", 2, 256),
    "2x-tiny-fsdp-2x256": job("tiny", 2, 256, gpus=2, engine="fsdp"),
    "2x-tiny-zero1-2x256": zero("tiny", 2, 256, 1),
}
"""What a computer without a GPU can train, to see that all of it runs."""
