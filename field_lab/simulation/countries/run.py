"""Runs one seed: people edit and administrators change the topology over bad links, then the oracle judges."""

import asyncio
import random

from engine.storage.outbox import has_pushable, waiting
from field_lab.simulation.countries.administration import change
from field_lab.simulation.countries.country import Country
from field_lab.simulation.countries.founding import found_country
from field_lab.simulation.countries.names import NAMES
from field_lab.simulation.countries.people import edit, go_rogue, try_forbidden
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.run import live, raise_told
from field_lab.simulation.seeds import Outcome, Suite
from field_lab.simulation.truth import Broken
from field_lab.simulation.weather import Weather

SITES_MIN, SITES_MAX = 3, 6
EDITS, CHANGES = 200, 20
"""What happens at least in each country."""
_STEPS_MAX = 2_000
_SECONDS_MAX = 600.0
_SETTLING_SECONDS = 60.0
_QUIET_SECONDS = 10.0


def judge_country(seed: int) -> Outcome:
    """Runs a seed. Whatever goes wrong is the outcome's failure."""
    chance = random.Random(seed)
    sites, is_mirrored = chance.randrange(SITES_MIN, SITES_MAX + 1), chance.random() < 0.5
    found_country(sites, is_mirrored)  # outside of the seed's time
    return live(
        seed,
        lambda folder: Country(folder, sites, is_mirrored, chance),
        lambda country, _folder, errors: _run(country, chance, errors),
    )


ORACLE = Suite("oracle", judge_country, NAMES, 50)
"""Every kind of record, every relation of a node to it, and every rule by which copies of stores come and go."""


async def _run(country: Country, chance: random.Random, errors: list[str]) -> None:
    for number in country.machines:
        country.start(number)
    for _ in range(_STEPS_MAX):
        await _step(country, chance)
        country.check()
        raise_told(errors)
        if country.edits >= EDITS and country.changes >= CHANGES:
            break
    else:
        raise Broken(f"{country.edits} edits and {country.changes} changes are too few")
    await _settle(country)
    raise_told(errors)
    judgement = country.judge()
    for name, count in judgement.judged.items():
        country.counters.count(name, count)
    if judgement.faults:
        raise Broken("; ".join(judgement.faults))


async def _step(country: Country, chance: random.Random) -> None:
    if chance.random() < 0.05:
        country.weather = _draw_weather(chance)
    await asyncio.sleep(chance.random() * chance.choice((0.01, 0.2, 2.0)))
    number = CENTRAL if chance.random() < 0.2 else chance.choice(country.numbers)
    if chance.random() < 0.25:
        number = country.primary
    drawn = chance.random()
    if drawn < 0.2:
        await change(country)
    elif drawn < 0.3:
        try_forbidden(country, number)
    elif drawn < 0.32 and number != CENTRAL:
        go_rogue(country, number)
    else:
        edit(country, number)


def _draw_weather(chance: random.Random) -> Weather:
    return Weather(
        delay_seconds_max=chance.choice((0.0, 0.05, 2.0)),
        cut_rate=chance.choice((0.0, 0.0, 0.02, 0.1)),
        half_open_rate=chance.choice((0.0, 0.0, 0.5)),
        late_rate=chance.choice((0.0, 0.5)),
        refuse_rate=chance.choice((0.0, 0.0, 0.3)),
        twice_rate=chance.choice((0.0, 0.0, 0.3)),
        lost_call_rate=chance.choice((0.0, 0.0, 0.3)),
    )


async def _settle(country: Country) -> None:
    """The weather is fine, every node begins anew, which finds what was edited behind triggers, and all comes to rest;
    and once more, because a session looks at its beginning whether something still refers to what is hidden. Raises
    Broken where nothing comes to rest."""
    country.heal()
    for _ in range(2):
        await asyncio.gather(*(country.restart(number) for number in country.machines))
        await asyncio.sleep(_SETTLING_SECONDS)
        await _come_to_rest(country)


async def _come_to_rest(country: Country) -> None:
    end, quiet_since = asyncio.get_running_loop().time() + _SECONDS_MAX, None
    while True:
        await asyncio.sleep(1.0)
        country.check()
        now, why = asyncio.get_running_loop().time(), _what_is_under_way(country)
        if why and now > end:
            raise Broken(f"nothing comes to rest: {why}")
        quiet_since = None if why else quiet_since or now
        if quiet_since is not None and now - quiet_since >= _QUIET_SECONDS:
            return


def _what_is_under_way(country: Country) -> str:
    """What is still to be sent, fetched, removed or compared; empty when there is nothing."""
    central = country.machines[CENTRAL]
    if central.ask("SELECT 1 FROM sync_outbox UNION ALL SELECT 1 FROM sync_work LIMIT 1"):
        return "the central has something to route"
    for number in country.numbers:
        site, program = country.machines[number], country.program(number)
        heads = central.ask(
            "SELECT u.scope, u.generation, ifnull(s.position, 0) FROM central_subscription AS u"
            f" LEFT JOIN sync_scope AS s ON s.name = u.scope WHERE u.site = {number} ORDER BY u.scope"
        )
        if site.ask("SELECT name, generation, position FROM sync_scope WHERE generation > 0 ORDER BY name") != heads:
            return f"site {number} has not read everything"
        if has_pushable(program) or waiting(program) or site.ask("SELECT 1 FROM sync_want"):
            return f"site {number} has something to send or wants something"
        if site.ask("SELECT 1 FROM sync_meta WHERE key IN ('left_due', 'left_next')"):
            return f"site {number} still removes what has left it"
        if not central.ask(
            f"SELECT 1 FROM central_site WHERE site = {number} AND differing = '' AND waiting_to_push = 0"
        ):
            differing = central.ask(f"SELECT differing, waiting_to_push FROM central_site WHERE site = {number}")
            return f"site {number} does not agree: {differing}"
    return ""
