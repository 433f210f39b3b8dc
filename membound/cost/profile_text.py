"""A profile as the file that people read: the text that `membound.cost.profile.read` takes."""

from __future__ import annotations

import math

import yaml

from membound.cost.profile import SCHEMA, Profile, Rate


def text(profile: Profile) -> str:
    """The YAML of `profile`; numbers with four digits."""
    lines = [
        f"schema: {SCHEMA}",
        f"gpu: {profile.gpu}",
        f"source: {_quoted(profile.source)}",
        f"clock: {profile.clock * 1e-6:.4g} MHz",
        f"sms: {profile.sms}",
        f"l2_bandwidth: {profile.l2_bandwidth * 1e-12:.4g} TB/s",
        "families:",
        *(f"  {name}: {{{_rate(rate)}}}" for name, rate in profile.families.items()),
        f"launch: {{{', '.join(f'{kind}: {_time(value)}' for kind, value in profile.launch.items())}}}",
    ]
    if profile.factors:
        lines.append(f"factors: {{{', '.join(f'{law}: {value:.4g}' for law, value in profile.factors.items())}}}")
    if profile.copy_latency is not None:
        lines.append(f"copy_latency: {_time(profile.copy_latency)}")
    if profile.unmeasured:
        lines.append(f"unmeasured: [{', '.join(profile.unmeasured)}]")
    return "\n".join(lines) + "\n"


def _rate(rate: Rate) -> str:
    elements = "" if math.isinf(rate.elements) else f", elements: {rate.elements * 1e-9:.4g}e9"
    return f"efficiency: {rate.efficiency:.4g}{elements}, fixed: {_time(rate.fixed)}, band: {rate.band:.4g}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.4g} us"


def _quoted(words: str) -> str:
    """As YAML takes any text on one line."""
    return str(yaml.safe_dump(" ".join(words.split()), width=math.inf, allow_unicode=True)).removesuffix("...\n").strip()
