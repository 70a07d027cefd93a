"""soak: the mixture for hours, a line a minute; memory stays flat.

It is what a service does between two deployments. Not among the scenarios that run unless asked: 30 minutes, or what
--seconds says.
"""
from __future__ import annotations

import gc
import time

from stress import machine
from stress.plan import Options, Plan
from stress.runner import Running
from stress.scenarios import mixed

SECONDS = 1_800.0
LOOKS = 240  # at memory, in the whole run
LINE_EVERY_S = 60.0


def plans(options: Options) -> list[Plan]:
    return [mixed.plan("soak", options, mode, during) for mode in options.modes]


def during(running: Running) -> None:
    mixture = mixed.Mixture(running)
    look_every = (running.plan.options.seconds or SECONDS) / LOOKS
    look, line = look_every, LINE_EVERY_S

    def step() -> None:
        nonlocal look, line
        mixture.step()
        if running.elapsed >= look:
            look = running.elapsed + look_every
            gc.collect()
            running.resident.append(machine.resident_bytes())
        if running.elapsed >= line:
            line += LINE_EVERY_S
            print(_line(running), flush=True)

    running.disturb(step, mixed.STEPS, SECONDS)
    mixture.end()
    running.notes.append(_line(running))


def _line(running: Running) -> str:
    ops, cached = running.load.now()
    resident = running.resident[-1] if running.resident else machine.resident_bytes()
    return (f"{time.strftime('%H:%M:%S')} {running.plan.title}: {running.elapsed / 60:.1f} min, {ops:,} ops, resident "
            f"{resident / 2**20:.1f} MiB, cached {cached:,}, bound {running.pool.bound or 0:,}")
