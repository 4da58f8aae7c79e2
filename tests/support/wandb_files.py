"""What W&B wrote of a run, read back by its own reader."""

import json
import subprocess
import sys


def records(directory):
    """What W&B's files of a run hold, each file's records by their type."""
    for path in sorted(directory.glob("wandb/*run-*/*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found = {}
        for record in map(json.loads, lines):
            found.setdefault(record["type"], []).append(record[record["type"]])
        yield found


def summary(found):
    """A file's summary as its records leave it."""
    return {key: value for record in found["summary"] for key, value in record.get("update", {}).items()}
