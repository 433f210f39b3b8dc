"""Where a real run on the CPU may differ from the ghost's, by name: the test that holds one against the other allows these and no other.

docs/exactness.md is the same table in prose.
"""

from __future__ import annotations

from typing import Final

from membound.trace.choice import Choice

_CPU, _CUDA = r"aten\._scaled_dot_product_flash_attention_for_cpu", r"aten\._scaled_dot_product_(flash|efficient|cudnn)_attention"

_LN = r"aten\.native_layer_norm"

ALLOWED: Final = (
    Choice(
        "attention",
        "the CPU has one fused attention kernel, CUDA several; CUDA's also return the state of the random numbers, 16 and 8 B",
        paired=((rf"{_CPU}\.default", rf"{_CUDA}\.default"), (rf"{_CPU}_backward\.default", rf"{_CUDA}_backward\.default")),
        sizes=frozenset({8, 16}),
    ),
    Choice(
        "attention mask",
        "CUDA's memory-efficient kernel gets its mask expanded to all heads, as a view",
        ghost=r"aten\.expand\.default",
        before=rf"{_CUDA}\.default",
    ),
    Choice(
        "layer norm statistics",
        "of 16-bit rows CUDA keeps mean and deviation in fp32, the CPU in 16 bits",
        paired=((rf"{_LN}\.default", rf"{_LN}\.default"), (rf"{_LN}_backward\.default", rf"{_LN}_backward\.default")),
    ),
    Choice(
        "host copies",
        "batches and numbers made on the host are copied to the GPU, and back; on the CPU they are there already",
        ghost=r"aten\._to_copy\.default",
        kinds=frozenset({"copy_h2d", "copy_d2h"}),
    ),
    Choice(
        "host reads",
        "a value that the host reads is an operator in the real run; on the ghost a synchronisation, or nothing if it is the host's own",
        real=r"aten\._local_scalar_dense\.default",
    ),
    Choice(
        "order check",
        "ZeRO-3 compares its order of modules with rank 0's: the real run looks at the values, the ghost has none",
        real=r"aten\.unbind\.int",
        line=r"deepspeed/runtime/zero/utils\.py:\d+",
        memory=r"aten\.lift_fresh\.default",
        sizes=frozenset({8}),
    ),
    Choice(
        "collective wrapper",
        "a real functional collective's result is wrapped until it is waited for, without memory of its own; a fake one is waited for at once",
        real=r"_c10d_functional\._wrap_tensor_autograd\.default",
        paired=((r"_c10d_functional\.wait_tensor\.default", r"_c10d_functional\.wait_tensor\.default"),),
        same=(0, 0),
        memory=r"_c10d_functional\.all_reduce\.default",
    ),
    Choice(
        "sharded addresses",
        "FSDP2 looks by address whether a shard has moved; a fake one has no address, and gets a new view",
        ghost=r"aten\.view\.default",
        line=r"fsdp/_fully_shard/_fsdp_param\.py:\d+",
    ),
    Choice(
        "inputs to device",
        "FSDP2 moves inputs to a GPU, under a profiler's mark; on the CPU it does not look",
        ghost=r"profiler\._record_function_(enter_new\.default|exit\._RecordFunction)",
        line=r"fsdp/_fully_shard/_fsdp_state\.py:\d+",
    ),
)

DDP_ALLOWED: Final = (
    Choice(
        "reducer's division",
        "DDP's own reducer divides a gradient while it copies it into its bucket; the ghost's hook, which no future answers, copies it alone",
        paired=((r"aten\.(mul\.out|copy_\.default)", r"aten\.copy_\.default"),),
        same=(1, 1),
    ),
    Choice(
        "reducer's new buckets",
        "after the first step DDP makes its buckets anew, in the order in which gradients came; the ghost's stay as first made",
        real=r"aten\.(empty\.memory_format|copy_\.default|as_strided\.default)|c10d\.broadcast_\.default",
        ghost=r"aten\.copy_\.default",
    ),
)
"""With DistributedDataParallel, these too."""
