"""The figures of a bench run: what is printed, and what build/bench.json holds."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from field_lab.bench.cut_link import Carried
from field_lab.bench.transfers import Rate


@dataclass
class Figures:
    """Medians of the runs."""

    seed: int
    rows: int
    sites: int
    runs: int
    push: list[Rate]
    pull: list[Rate]
    many: list[Rate]
    latency_milliseconds: list[float]
    uncut: list[Carried]
    cut: list[Carried]
    bare_stream_records: float

    def values(self) -> dict[str, Any]:
        """The figures by name: rates in records per second, ratios to the raw rate beside them."""
        told: dict[str, Any] = {"seed": self.seed, "rows": self.rows, "sites": self.sites, "runs": self.runs}
        for name, rates in (("push", self.push), ("pull", self.pull), ("twenty_sites", self.many)):
            told[f"{name}_records_per_second"] = round(_median([rate.records for rate in rates]))
            told[f"{name}_raw"] = round(_median([rate.raw for rate in rates]))
            told[f"{name}_raw_two_rows"] = round(_median([rate.raw_two_rows for rate in rates]))
            told[f"{name}_ratio"] = round(_median([rate.records / rate.raw for rate in rates]), 3)
        seconds = _median([cut.seconds / uncut.seconds for cut, uncut in zip(self.cut, self.uncut, strict=True)])
        carried = _median([cut.bytes / uncut.bytes for cut, uncut in zip(self.cut, self.uncut, strict=True)])
        return told | {
            "bare_stream_records_per_second": round(self.bare_stream_records),
            "latency_p50_ms": round(_median(self.latency_milliseconds), 1),
            "latency_p95_ms": round(statistics.quantiles(self.latency_milliseconds, n=20)[-1], 1),
            "wire_bytes_per_record": round(_median([uncut.bytes_per_record for uncut in self.uncut]), 1),
            "uncut_seconds": round(_median([uncut.seconds for uncut in self.uncut]), 2),
            "cut_seconds": round(_median([cut.seconds for cut in self.cut]), 2),
            "cuts": min(cut.cuts for cut in self.cut),
            "cut_time_ratio": round(seconds, 3),
            "cut_bytes_ratio": round(carried, 3),
        }

    def write(self, file: Path) -> None:
        """Writes the figures as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.values(), indent=2) + "\n")

    def table(self) -> Table:
        """The figures for a person, each with what it is compared with."""
        told = self.values()
        table = Table("what", "figure", "beside it", "ratio", "wanted", title=f"{self.rows} rows, seed {self.seed}")
        rows = (
            ("pushed by one site", "push"), ("pulled by a new site", "pull"),
            (f"pushed by {self.sites} sites at once", "twenty_sites"),
        )  # fmt: skip
        for what, name in rows:
            beside = f"raw {told[f'{name}_raw']:,}, raw_two_rows {told[f'{name}_raw_two_rows']:,}"
            rate = f"{told[f'{name}_records_per_second']:,} records/s"
            table.add_row(what, rate, beside, f"{told[f'{name}_ratio']:.2f} of raw", "0.25 or more")
        table.add_row("bare grpc.aio stream", f"{told['bare_stream_records_per_second']:,} records/s", "", "", "")
        latency = f"p50 {told['latency_p50_ms']} ms, p95 {told['latency_p95_ms']} ms"
        table.add_row("latency from site to site", latency, "", "", "10 ms, 25 ms")
        table.add_row("wire bytes per record", str(told["wire_bytes_per_record"]), "", "", "95 or less")
        uncut = f"uncut {told['uncut_seconds']} s"
        for what, name, most in (("time", "cut_time_ratio", "1.15"), ("bytes", "cut_bytes_ratio", "1.10")):
            figure = f"{told['cut_seconds']} s, {told['cuts']} cuts" if what == "time" else ""
            beside = uncut if what == "time" else ""
            table.add_row(f"link cut every 2 s: {what}", figure, beside, f"{told[name]:.2f}", f"{most} or less")
        return table


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
