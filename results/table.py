"""Print the tables of docs/results.md from the records beside this file.

    python results/table.py                       print
    python results/table.py --check docs/results.md     does it hold just this between its two marks? exit code 1 if not
    python results/table.py --write docs/results.md     put it there

A record is what `python results/record.py` writes. Records of one set, split and protocol make a table; what all rows
of it share stands once above it, and the commands below it.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from depthnet.core.tables import Table

BEGIN, END = "<!-- results/table.py writes this -->", "<!-- to here -->"
FIGURES = {
    "delta1 (95 %)": "delta1",
    "delta2": "delta2",
    "delta3": "delta3",
    "AbsRel": "abs_rel",
    "RMSE": "rmse",
    "log10": "log10",
    "boundary F1": "edge_f1",
    "robustness": "robustness",
}
COLUMNS = ("network", "size", *FIGURES, "M parameters", "GMACs", "ms (encoder)", "minutes")
NONE = "–"


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a folder, by name of file."""
    return [_as_now(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def _as_now(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is written now; the first ones were metrics.json with a command and minutes."""
    if "figures" in record:
        return record
    protocol, figures = next(iter(record["protocols"].items()))
    return {
        **{key: record[key] for key in ("name", "set", "minutes", "split", "images", "data")},
        "commands": [record["command"]],
        "hardware": ["2 cores"],
        "protocol": protocol,
        "image_size": record["data"]["image_size"],
        "figures": {key: {"mean": value, "interval": None} for key, value in figures.items()},
        "runs": [{"seed": record["seed"]}],
        "mean_map": record["mean_map"][protocol],
    }


def tables(records: Iterable[dict[str, Any]]) -> str:
    """Return all tables, as Markdown."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(
            (record["set"], record["split"], record["protocol"], record["data"]["ground_truth"]), []
        ).append(record)
    return "\n\n".join(_table(rows) for rows in groups.values())


def _table(records: Sequence[dict[str, Any]]) -> str:
    first = records[0]
    said = {key: _shared(records, key) for key in ("size", "training", "evaluated", "seeds", "hardware")}
    above = [
        f"**{first['set']}**" + (f", {said['training']}" if said["training"] else ""),
        f"{first['split']}, {said['evaluated'] or 'images as stated below'}",
        f"`{first['protocol']}`, {first['data']['ground_truth']} ground truth",
        *(said[key] for key in ("size", "seeds", "hardware") if said[key]),
    ]
    rows = [_cells(record) for record in records]
    constant = max((record["mean_map"] or {} for record in records), key=len)
    if constant:
        rows.insert(0, {"network": "mean map", **_figures({key: {"mean": mean} for key, mean in constant.items()})})
    columns = [name for name in COLUMNS if any(row.get(name) for row in rows) and not (name == "size" and said["size"])]
    table = Table(columns, "l" * len(columns))
    for row in rows:
        table.add(*(row.get(name) or NONE for name in columns))
    below = []
    for number, record in enumerate(records, start=1):
        facts = [_say(record, key) for key in said if key != "size" and not said[key]]
        if len(record["runs"]) > 1:
            values = [run["figures"]["delta1"] for run in record["runs"]]
            facts.append(f"delta1 of the seeds {min(values):.3f} to {max(values):.3f}")
        commands = ", then ".join(f"`{command}`" for command in record["commands"])
        below.append(f"{number}. {record['name']}: {commands}{'; ' * bool(facts)}{'; '.join(facts)}")
    return f"{'; '.join(above)}\n\n{table.markdown()}\n\n" + "\n".join(below)


def _say(record: dict[str, Any], key: str) -> str:
    if key == "size":
        return "x".join(map(str, record["image_size"]))
    if key == "training":
        return f"train split of {record['data']['frames']['train']} images"
    if key == "evaluated":
        scenes = f" of {record['scenes']} scenes" if record.get("scenes") else ""
        limited = f" of {record['expected']}" if record.get("expected", record["images"]) != record["images"] else ""
        return f"{record['images']}{limited} images{scenes}"
    if key == "seeds":
        seeds = [str(run["seed"]) for run in record["runs"]]
        return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    return " and ".join(record["hardware"])


def _shared(records: Sequence[dict[str, Any]], key: str) -> str:
    """What all records say, or nothing."""
    said = {_say(record, key) for record in records}
    return said.pop() if len(said) == 1 else ""


def _cells(record: dict[str, Any]) -> dict[str, str]:
    cost, minutes = record.get("cost"), record["minutes"]
    cells = {"network": record["name"], "size": _say(record, "size"), **_figures(record["figures"])}
    if cost:
        encoder = f" ({cost['encoder_ms']:.0f})" if cost["encoder_ms"] else ""
        cells["M parameters"], cells["GMACs"] = f"{cost['parameters'] / 1e6:.1f}", f"{cost['gmacs']:.2f}"
        cells["ms (encoder)"] = f"{cost['ms']:.0f}{encoder}"
    if minutes is not None:
        cells["minutes"] = f"{minutes:.0f}"
    return cells


def _figures(figures: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = {name: figures[key]["mean"] for name, key in FIGURES.items() if key in figures}
    cells = {name: f"{mean:.3f}" for name, mean in found.items() if mean is not None}  # no ground truth had an edge
    if ends := figures["delta1"].get("interval"):
        cells["delta1 (95 %)"] += f" ({ends[0]:.3f} to {ends[1]:.3f})"
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    text = tables(read(Path(__file__).parent))
    path = options.check or options.write
    if path is None:
        print(text)
        return 0
    stands = path.read_text(encoding="utf-8")
    before, begin, rest = stands.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        print(f"{path}: has no {BEGIN} and {END} with a place for the tables between", file=sys.stderr)
        return 1
    wanted = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
    if options.write:
        path.write_text(wanted, encoding="utf-8")
    elif stands != wanted:
        pairs = itertools.zip_longest(stands.splitlines(), wanted.splitlines(), fillvalue="nothing")
        number, line = next((n, theirs) for n, (ours, theirs) in enumerate(pairs, start=1) if ours != theirs)
        print(
            f"{path}:{number}: is not what the records give: {line[:80]}; python {sys.argv[0]} --write {path}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
