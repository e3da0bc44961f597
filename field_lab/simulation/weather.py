"""What goes wrong between the nodes and at them for a while. Rates are per message, call or commit."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Weather:
    """Without arguments: fine weather."""

    delay_seconds_max: float = 0.05
    cut_rate: float = 0.0
    half_open_rate: float = 0.0
    """Of the cuts: those of which one end is not told."""
    late_rate: float = 0.0
    """Of the other cuts: those before which the central still gets, later, what is on its way."""
    refuse_rate: float = 0.0
    twice_rate: float = 0.0
    """A stream is opened once more with the same Hello; a call is done once more."""
    lost_call_rate: float = 0.0
    flip_rate: float = 0.0
    """A bit of a frame's bytes changes on the way."""
    crash_rate: float = 0.0
    poison_rate: float = 0.0
    """A frame ends the process of the central whenever it is taken."""


def draw_weather(chance: random.Random, poison: bool) -> Weather:
    """The weather of the next while. `poison`: whether frames may end processes."""
    return Weather(
        delay_seconds_max=chance.choice((0.0, 0.05, 2.0)),
        cut_rate=chance.choice((0.0, 0.01, 0.1)),
        half_open_rate=chance.choice((0.0, 0.5)),
        late_rate=chance.choice((0.0, 0.5)),
        refuse_rate=chance.choice((0.0, 0.3)),
        twice_rate=chance.choice((0.0, 0.0, 0.3)),
        lost_call_rate=chance.choice((0.0, 0.3)),
        flip_rate=chance.choice((0.0, 0.0, 0.05)),
        crash_rate=chance.choice((0.0, 0.0, 0.01, 0.05)),
        poison_rate=0.05 if poison and chance.random() < 0.5 else 0.0,
    )
