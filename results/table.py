"""Print README's results table from the records beside this file: python results/table.py

A record is a run's metrics.json with two entries more: "command" and "minutes".
"""

import json
from pathlib import Path

HEADER = (
    "network",
    "data",
    "split",
    "protocol (truth)",
    "delta1",
    "delta2",
    "delta3",
    "AbsRel",
    "RMSE",
    "seed",
    "command",
)


def rows() -> list[tuple[str, ...]]:
    found = []
    for path in sorted(Path(__file__).parent.glob("*.json")):
        record = json.loads(path.read_text())
        data = record["data"]
        height, width = data["image_size"]
        for protocol, figures in record["protocols"].items():
            judged = {record["name"]: figures, "mean map": record["mean_map"][protocol]}
            for name, values in judged.items():
                numbers = [f"{values[key]:.3f}" for key in ("delta1", "delta2", "delta3", "abs_rel", "rmse")]
                ours = name != "mean map"
                command = f"`{record['command']}` ({record['minutes']} min on 2 cores)" if ours else "as above"
                found.append(
                    (
                        name,
                        f"{record['set']}, {data['frames']['train']} train, {width}x{height}",
                        f"{record['split']}, {record['images']}",
                        f"{protocol} ({data['truth']})",
                        *numbers,
                        str(record["seed"]),
                        command,
                    )
                )
    return found


def main() -> None:
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}")
    seen = set()
    for row in rows():
        if row[:-1] not in seen:  # one line for the mean map of one data set
            print(f"| {' | '.join(row)} |")
        seen.add(row[:-1])


if __name__ == "__main__":
    main()
