"""Make the values that rest on sensors anew from the kept series of measured Runs: after a change of how curves become values.

    python validation/resample.py validation/h200/results-4.jsonl validation/h200/series-4.tar [--write]

Prints each value that changes by more than a thousandth; with `--write` the results are written back. Marks give the counted steps as they did.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from membound.measure import summary_series  # noqa: E402
from membound.measure.evidence import Evidence  # noqa: E402
from membound.measure.outcome import Outcome  # noqa: E402
from membound.measure.plan import Nodes, Options, Plan  # noqa: E402
from membound.run.schema import Fits, Missing, Value  # noqa: E402

# Changes that are worth a line.
_NOTED = 1e-3


def main() -> None:
    """Every record of the file that has series in the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("series", type=Path)
    parser.add_argument("--write", action="store_true", help="write the results back")
    asked = parser.parse_args()
    records = [json.loads(line) for line in asked.results.read_text().splitlines()]
    with tarfile.open(asked.series) as archive:
        for record in records:
            tables = _tables(archive, record["name"])
            if record["run"] is not None and {"gpu", "marks", "curves"} <= tables.keys():
                _again(record, tables)
    if asked.write:
        asked.results.write_text("".join(json.dumps(record) + "\n" for record in records))


def _tables(archive: tarfile.TarFile, name: str) -> dict[str, pa.Table]:
    found = {}
    for member in archive.getmembers():
        folder, _, file = member.name.partition("/")
        if folder == name and file.endswith(".parquet"):
            taken = archive.extractfile(member)
            assert taken is not None
            found[file.removesuffix(".parquet")] = pq.read_table(io.BytesIO(taken.read()))
    return found


def _again(record: dict[str, Any], tables: dict[str, pa.Table]) -> None:
    document = record["run"]
    for name, value in summary_series.values(_evidence(document, tables)).items():
        before, now = document["values"].get(name, {}).get("value"), value.value if isinstance(value, Value) else None
        if before != now and (before is None or now is None or abs(now - before) > _NOTED * abs(before)):
            print(f"{record['name']:45} {name:25} {before} -> {value.reason if isinstance(value, Missing) else now}")
        document["values"][name] = value.document()


def _evidence(document: dict[str, Any], tables: dict[str, pa.Table]) -> Evidence:
    about = document["about"]
    options = dict(about["options"])
    plan = Plan(
        document["job"], document["machine"], {}, "cuda", Options(**{**options, "nodes": Nodes(**options.get("nodes", {}))}), {}, 0,
    )  # fmt: skip
    # Ranks of one host use the first GPUs; others that stand beside them were sampled as well.
    used = int(document["job"]["gpus"])
    sampled = tables["gpu"].filter(pc.less(tables["gpu"]["gpu"], used))
    return Evidence(plan, Outcome("done", Fits(True, True), "done", 0), {}, tables["marks"], {**tables, "gpu": sampled}, about["sampler"], "", 0)


if __name__ == "__main__":
    main()
