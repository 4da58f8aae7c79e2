"""Injects every fault many times, for real, and prints what was lost: make torture (half an hour on two cores).

The table goes to stdout as Markdown, what went wrong to stderr. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / folder) for folder in (".", "tests", "tests/support", "tests/faults")]

import hostile  # noqa: E402
import kills  # noqa: E402
import loggers  # noqa: E402
import stops  # noqa: E402
import writes  # noqa: E402

Row = tuple[str, int, int, int, int]


def rated(outcomes: Iterable[tuple[str, bool, str]], group: str, good: bool) -> list[Row]:
    """Turn (fault, what happened, printed) into rows; ``good`` is what should have happened."""
    return [
        (f"{group}: {fault}", 1, 1, int(happened is good), int(happened is not good)) for fault, happened, _ in outcomes
    ]


def tested(folder: Path) -> list[Row]:
    """Run the tests that plant bad data, each kind of it a row."""
    files = [f"{REPOSITORY}/tests/{name}.py" for name in ("data/validation/test_check", "faults/test_hostile")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-k",
        "not attack",
        *files,
        f"--junitxml={folder}/outcomes.xml",
    ]
    subprocess.run(command, cwd=REPOSITORY, check=False, stdout=sys.stderr)
    rows = []
    for case in ElementTree.parse(folder / "outcomes.xml").iter("testcase"):
        name = str(case.get("name")).removeprefix("test_").replace("_", " ")
        lost = int(case.find("failure") is not None or case.find("error") is not None)
        ran = int(case.find("skipped") is None)
        rows.append((f"data: {name}", ran, ran, ran - lost, lost))
    return rows


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "kills": lambda folder: kills.survive_kills(folder, kills=100, seed=1),
    "stops": stops.run_all,
    "writes": lambda folder: writes.run_all(folder, quick=False),
    "loggers": lambda folder: rated(loggers.run_all(folder), "logger", good=True),
    "hostile": lambda folder: rated(hostile.run_all(folder), "hostile", good=False),
    "data": tested,
}


def main() -> int:
    """Run the parts that are named, or all."""
    print("| fault | tries | landed | survived | lost |\n| --- | --- | --- | --- | --- |", flush=True)
    total = 0
    for part in sys.argv[1:] or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"torture_{part}_") as folder:
            for fault, tries, landed, survived, lost in PARTS[part](Path(folder)):
                print(f"| {fault} | {tries} | {landed} | {survived} | {lost} |", flush=True)
                total += lost
        print(f"{part}: {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr, flush=True)
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
