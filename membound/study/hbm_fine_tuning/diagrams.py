"""Figures 2, 3 and 5: the encoder-decoder, the decoder and the system, drawn from the catalogue's models and the Machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from membound.report.charts.diagram import Diagram
from membound.report.charts.scale import say
from membound.spec import catalogue
from membound.spec.machine import Machine
from membound.study.hbm_fine_tuning.drawing import Drawing

_WIDE, _NARROW = 760, 360
_BOX: Final = 36.0
_STEP: Final = 54.0


def encoder_decoder(model: str = "t5-large") -> Diagram:
    """Figure 2, of the catalogue's `model`."""
    entry = catalogue.model(model)
    config = entry.config
    says = (
        f"{model} has {config['num_layers']} layers in its encoder and {config['num_decoder_layers']} in its decoder, "
        f"{config['num_heads']} heads, a width of {config['d_model']:,} and a vocabulary of {config['vocab_size']:,}."
    )
    wide, narrow = (_two_stacks(config, width) for width in (_WIDE, _NARROW))
    return Diagram(title=f"An encoder-decoder: {model}", label="Figure 2", says=says, svg=wide, narrow=narrow, source=entry.source)


def _two_stacks(config: Mapping[str, Any], width: int) -> str:
    column = min(width * 0.44, 250.0)
    left, right = (width - 2 * column) / 3, (width - 2 * column) * 2 / 3 + column
    drawn = Drawing(width, 380)
    forward = f"feed forward, {config['d_ff']:,}"
    heads = f"{config['num_heads']} heads"
    lower = 290.0
    for x, words, layers, parts in (
        (left, "encoder", config["num_layers"], (f"attention, {heads}", forward)),
        (right, "decoder", config["num_decoder_layers"], (f"masked attention, {heads}", f"cross attention, {heads}", forward)),
    ):
        top = lower - _STEP * len(parts) - 34
        drawn.box(x, lower + 20, column, _BOX, _broken(f"embedding, {config['vocab_size']:,} x {config['d_model']:,}", width), 0)
        drawn.frame(x - 8, top, column + 16, lower - top - 4, f"{words}: {layers} layers")
        for at, part in enumerate(parts):
            y = lower - _STEP * (at + 1)
            drawn.box(x, y, column, _BOX, _broken(part, width), 1 if "attention" in part else 2)
            drawn.arrow(x + column / 2, y + _STEP, x + column / 2, y + _BOX)
        drawn.arrow(x + column / 2, top, x + column / 2, top - 22 if words == "decoder" else top - 12)
    # What the encoder gives goes into the decoder's second part.
    y = lower - _STEP * 2 + _BOX / 2
    drawn.line(left + column / 2, lower - _STEP * 2 - 46, left + column + (right - left - column) / 2, lower - _STEP * 2 - 46)
    drawn.line(left + column + (right - left - column) / 2, lower - _STEP * 2 - 46, left + column + (right - left - column) / 2, y)
    drawn.arrow(left + column + (right - left - column) / 2, y, right, y)
    top = lower - _STEP * 3 - 34
    drawn.box(right, top - 22 - _BOX, column, _BOX, f"logits, {config['vocab_size']:,} words", 3)
    drawn.words(left + column / 2, 370, "text to read")
    drawn.words(right + column / 2, 370, "text written so far")
    return drawn.svg()


def _broken(words: str, width: int) -> str:
    """On a phone, two lines."""
    return words.replace(", ", "\n", 1) if width < _WIDE else words


def decoder(model: str = "llama-7b") -> Diagram:
    """Figure 3, of the catalogue's `model`."""
    entry = catalogue.model(model)
    config = entry.config
    says = (
        f"{model} repeats attention and feed forward {config['num_hidden_layers']} times: {config['num_attention_heads']} heads, "
        f"a width of {config['hidden_size']:,}, {entry.parameters:,} parameters in all."
    )
    wide, narrow = (_one_stack(config, width) for width in (_WIDE, _NARROW))
    return Diagram(title=f"A decoder: {model}", label="Figure 3", says=says, svg=wide, narrow=narrow, source=entry.source)


def _one_stack(config: Mapping[str, Any], width: int) -> str:
    column = 300.0
    x = (width - column) / 2
    drawn = Drawing(width, 455)
    parts = (
        (f"token embedding, {config['vocab_size']:,} x {config['hidden_size']:,}", 0),
        ("RMS norm", 4),
        (f"masked attention, {config['num_attention_heads']} heads, rotary", 1),
        ("RMS norm", 4),
        (f"feed forward, {config['intermediate_size']:,}, gated", 2),
        ("RMS norm", 4),
        (f"logits, {config['vocab_size']:,} words", 3),
    )
    lower = 380.0
    for at, (words, colour) in enumerate(parts):
        y = lower - _STEP * at - (14 if at else 0) - (26 if at > 4 else 0)
        drawn.box(x, y, column, _BOX, words, colour)
        if at:
            drawn.arrow(x + column / 2, y + _STEP + (14 if at == 1 else 26 if at == 5 else 0), x + column / 2, y + _BOX)
    top = lower - _STEP * 4 - 40
    drawn.frame(x - 24, top, column + 48, lower - top - 4, f"{config['num_hidden_layers']} layers")
    for first, last in ((1, 2), (3, 4)):
        # The residual goes around each norm and what follows it.
        bottom, end = lower - _STEP * first + 28, lower - _STEP * last - 20
        drawn.line(x + column / 2, bottom, x + column + 14, bottom)
        drawn.line(x + column + 14, bottom, x + column + 14, end)
        drawn.arrow(x + column + 14, end, x + column / 2, end)
    drawn.words(width / 2, 440, "text so far; its next word above")
    return drawn.svg()


def system(machine: Machine) -> Diagram:
    """Figure 5, of `machine`."""
    gpu, host = machine.gpu, machine.host
    says = (
        f"{machine.gpus} x {gpu.name} with {say(gpu.hbm.capacity, 'B')} of {gpu.hbm.kind} at {say(gpu.hbm.bandwidth, 'B/s')} each; "
        f"{host.sockets} processors, {say(host.capacity, 'B')} at {say(host.bandwidth, 'B/s')}; {_uplinks(machine)}."
    )
    return Diagram(title=f"The system: {machine.name}", label="Figure 5", says=says, svg=_system(machine, _WIDE), narrow=_system(machine, _NARROW),
        source=machine.links.source)  # fmt: skip


def _uplinks(machine: Machine) -> str:
    shared = machine.links.pcie.shared_by
    return f"{shared} GPUs share an uplink" if shared > 1 else "each GPU has an uplink of its own"


def _system(machine: Machine, width: int) -> str:
    host, links = machine.host, machine.links
    drawn = Drawing(width, 500)
    small = width < _WIDE
    socket = (width - 60) / host.sockets
    gpus = machine.gpus
    cell = (width - 40) / gpus
    memory = f"{host.channels_per_socket} channels\n{say(host.capacity / host.sockets, 'B')}, {say(host.bandwidth / host.sockets, 'B/s')}"
    for at in range(host.sockets):
        x = 20 + at * (socket + 20)
        drawn.box(x, 10, socket, 56, memory, 3)
        drawn.line(x + socket / 2, 66, x + socket / 2, 90)
        name = host.cpu.replace("Intel ", "").replace("Platinum ", "") if small else host.cpu
        drawn.box(x, 90, socket, 56, f"{name}\n{host.cores_per_socket} cores, {say(host.l3, 'B')} L3", 0)
    shared = links.pcie.shared_by
    for switch in range(-(-gpus // shared)):
        x = 20 + switch * shared * cell
        mid = x + shared * cell / 2
        drawn.line(mid, 146, mid, 196)
        link = "PCIe switch" if shared > 1 else "PCIe"
        drawn.box(x + 4, 196, shared * cell - 8, 40, "PCIe" if small else f"{link}\n{say(links.pcie.bandwidth, 'B/s')}")
        for each in range(min(shared, gpus - switch * shared)):
            centre = x + (each + 0.5) * cell
            drawn.line(centre, 236, centre, 266)
            drawn.box(
                centre - cell / 2 + 4,
                266,
                cell - 8,
                60,
                f"{switch * shared + each}" if small else f"GPU {switch * shared + each}\n{machine.gpu.sms} SMs",
                1,
            )
            drawn.box(centre - cell / 2 + 4, 332, cell - 8, 56, "" if small else f"{say(machine.gpu.hbm.capacity, 'B')}\n{machine.gpu.hbm.kind}", 2)
            drawn.line(centre, 388, centre, 420)
    total = say(2 * (links.nvlink or 0.0), "B/s")
    drawn.box(20, 420, width - 40, 40, f"{'NVSwitch' if links.nvswitch else 'NVLink'}: {total} for each GPU, both directions", 4)
    if small:
        drawn.words(width / 2, 484, f"GPUs: {machine.gpu.sms} SMs; below each {say(machine.gpu.hbm.capacity, 'B')} of {machine.gpu.hbm.kind}")
    return drawn.svg()
