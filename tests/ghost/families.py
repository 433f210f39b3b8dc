"""Captures many small models in one process that imports once: reads a list of Jobs with configurations, prints a list of facts.

A capture changes PyTorch for good, so each runs in a fork of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.compile_fx  # bitsandbytes needs it, and each fork would import it anew
from transformers import AutoConfig, AutoModelForCausalLM

from membound.ghost import run
from membound.spec.job import Job
from membound.trace.schema import KIND, PHASE, PLACE


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """What a capture of the request's Job shows."""
    config = request["config"]
    fields = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    whole = sum(parameter.numel() for parameter in model.parameters())
    trace = run.record(Job.model_validate(request["job"]), config, 1, steps=1)
    header, storages = trace.header, trace.storages
    on_gpu = storages["place"] == PLACE["gpu"]
    rows = np.flatnonzero(np.isin(trace.instructions["kind"], [KIND["alloc"], KIND["free"]]) & on_gpu[trace.instructions["target"]])
    sign = np.where(trace.instructions["kind"][rows] == KIND["alloc"], 1, -1)
    live = np.cumsum(sign * (-(-trace.instructions["nbytes"][rows] // 512) * 512))
    phase = trace.instructions["phase"][rows]
    return {
        "whole": whole,
        "parameters": header.parameters,
        "trained": header.trained,
        "ops": header.ops,
        "notes": header.notes,
        "standing": int(live[np.flatnonzero(phase == PHASE["data"])[0] - 1]),
        "kept": int(live[np.flatnonzero(phase == PHASE["backward"])[0] - 1]),
        "peak": int(live[np.isin(phase, [PHASE["forward"], PHASE["backward"]])].max()),
        "managed": int(storages["nbytes"][storages["place"] == PLACE["managed"]].sum()),
    }


def forked(request: dict[str, Any]) -> dict[str, Any]:
    """`facts` in a fork, or the text of what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = os.fork()
        if child == 0:
            try:
                answer.write_text(json.dumps(facts(request)))
            except BaseException as error:
                answer.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}))
            os._exit(0)
        os.waitpid(child, 0)
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {"error": "the process died"}
        return found


if __name__ == "__main__":
    print("\n" + json.dumps([forked(request) for request in json.load(sys.stdin)]))
