"""What can happen to W&B around a run, for real: python tests/faults/loggers.py [WORDS OF A FAULT] prints a table."""

import contextlib
import csv
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
TRAIN = [
    "data=rooms",
    "data.frames={train: 8, val: 2, test: 0}",
    "data.image_size=[48,64]",
    "data.batch_size=1",
    "data.num_workers=0",
    "model=tiny",
    "trainer=cpu",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.log_every_n_steps=1",
    "logger=wandb",
]
LIMIT = 180.0


class Server(http.server.ThreadingHTTPServer):
    """W&B's server as far as a run needs it; ``manner`` is how it behaves.

    Args:
        manner: "good", "fails" (500 for ever), "silent" (takes requests, never answers), or "healthy" (silent, but for
            the question whether it is up).
    """

    daemon_threads = True

    def __init__(self, manner: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manner = manner
        self.asked: list[dict[str, object]] = []  # about runs
        self.last_step: int | None = None  # that it has of the run that is resumed
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def die(self) -> None:
        """Close the port, now and for every open connection's next request."""
        self.manner = "fails"
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        while self.server.manner == "silent" or (self.server.manner == "healthy" and self.path != "/healthz"):
            time.sleep(0.1)
        answer = json.dumps(_answer(body, self.server)).encode()
        self.send_response(500 if self.server.manner == "fails" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


def _answer(body: bytes, server: Server) -> object:
    try:
        request = json.loads(body)
        text, given = request["query"], request["variables"]
    except (ValueError, KeyError, TypeError):
        return {"data": {}}
    if "createRunFiles" in text:
        return {"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}}}
    if "RunResumeStatus" in text and server.last_step is not None:
        tail = json.dumps([json.dumps({"_step": server.last_step, "_runtime": 1})])
        counts = {"logLineCount": 0, "historyLineCount": 1, "eventsLineCount": 0, "eventsTail": "[]", "tags": []}
        bucket = {"id": "b", "name": given["name"], "displayName": "r", "config": "{}", "summaryMetrics": "{}"}
        bucket |= counts | {"historyTail": tail, "wandbConfig": '{"t": 1}'}
        return {"data": {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}, "bucket": bucket}}}
    if "upsertBucket" not in text:
        return {"data": {"model": {"bucket": None}, "project": None, "entity": None, "serverInfo": None}}
    server.asked.append(given)
    project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "e"}}
    bucket = {"id": "b", "name": given["name"], "displayName": "r", "config": "{}", "project": project}
    return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}


class Run:
    """A run of ``train.py`` with W&B as its logger.

    Args:
        directory: The run's.
        url: The server that an account is set up for; None for a run that is offline.
        options: Further words of the command line.
    """

    def __init__(self, directory: Path, url: str | None, *options: str) -> None:
        self.directory = directory
        home = directory.parent / "home"
        home.mkdir(parents=True, exist_ok=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        env |= {"HOME": str(home), "DEPTHNET_CACHE": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        env |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40} if url else {"WANDB_MODE": "offline"}
        command = [sys.executable, str(ROOT / "train.py"), *TRAIN, *options, f"hydra.run.dir={directory}"]
        self._started = time.monotonic()
        self._output = (directory.parent / f"{directory.name}.txt").open("w+")
        self._process = subprocess.Popen(command, env=env, stdout=self._output, stderr=self._output, cwd=home)

    def midway(self) -> None:
        """Return once the first epoch is done."""
        self._wait_for(lambda: (self.directory / "history.csv").exists())

    def cores(self) -> list[int]:
        """Return the ids of W&B's own processes."""
        children = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        ids = [int(word) for path in children for word in path.read_text().split()]
        return [number for number in ids if "wandb-core" in Path(f"/proc/{number}/comm").read_text()]

    def outcome(self) -> tuple[bool, str]:
        """Wait for the end; return whether training survived whole, and the seconds and all that it said of W&B."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LIMIT)
        seconds = time.monotonic() - self._started
        for number in [*self.cores(), self._process.pid] if self._process.poll() is None else []:
            os.kill(number, signal.SIGKILL)
        code = self._process.wait()
        self._output.seek(0)
        text = self._output.read()
        self._output.close()
        history = self.directory / "history.csv"
        epochs = len(list(csv.DictReader(history.open()))) if history.exists() else 0
        whole = code == 0 and epochs == EPOCHS and (self.directory / "metrics.json").exists()
        lines = [line for line in text.splitlines() if "W&B" in line or "wandb" in line.lower() or "Traceback" in line]
        return whole, f"{seconds:.0f} s, exit code {code}: {' | '.join(lines)}"

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._process.poll() is not None or time.monotonic() - self._started > LIMIT:
                raise RuntimeError(f"the run was over before the fault: {self.outcome()}")
            time.sleep(0.01)


def _from_the_start(manner: str) -> Callable[[Path], tuple[bool, str]]:
    def fault(directory: Path) -> tuple[bool, str]:
        return Run(directory, Server(manner).url, *SHORT).outcome()

    return fault


def _midway(act: Callable[[Server], None]) -> Callable[[Path], tuple[bool, str]]:
    def fault(directory: Path) -> tuple[bool, str]:
        server = Server("good")
        run = Run(directory, server.url, *SHORT)
        run.midway()
        act(server)
        return run.outcome()

    return fault


def _core(number: signal.Signals) -> Callable[[Path], tuple[bool, str]]:
    def fault(directory: Path) -> tuple[bool, str]:
        run = Run(directory, None)
        run.midway()
        (core,) = run.cores()
        os.kill(core, number)
        outcome = run.outcome()
        with contextlib.suppress(ProcessLookupError):  # one that hangs was left behind
            os.kill(core, signal.SIGKILL)
        return outcome

    return fault


def no_server(directory: Path) -> tuple[bool, str]:
    """Train with an account whose server is not there."""
    server = Server("good")
    server.die()
    return Run(directory, server.url).outcome()


def no_directory(directory: Path) -> tuple[bool, str]:
    """Train where W&B cannot make its directory."""
    directory.mkdir(parents=True)
    (directory / "wandb").write_text("in the way")
    return Run(directory, None).outcome()


def full_disk(directory: Path, size: str = "1200k") -> tuple[bool, str]:
    """Train with W&B's directory on a disk that fills up."""
    with small_disk(directory / "wandb", size):
        return Run(directory, None).outcome()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small file system; only root may.

    Raises:
        PermissionError: If this user may not.
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


SHORT = ["logger.init_timeout=3", "logger.finish_timeout=3"]
FAULTS: dict[str, Callable[[Path], tuple[bool, str]]] = {
    "its server is not there": no_server,
    "its server never answers": _from_the_start("silent"),
    "its server answers 500 for ever": _from_the_start("fails"),
    "its server says it is up, and nothing more": _from_the_start("healthy"),
    "its server falls silent midway": _midway(lambda server: setattr(server, "manner", "silent")),
    "its server answers 500 from midway": _midway(lambda server: setattr(server, "manner", "fails")),
    "its server dies midway": _midway(Server.die),
    "its process is killed midway": _core(signal.SIGKILL),
    "its process hangs midway": _core(signal.SIGSTOP),
    "its directory cannot be made": no_directory,
    "its disk is full": full_disk,
}


def run_all(folder: Path, words: str = "") -> list[tuple[str, bool, str]]:
    """Do every fault to a run of its own.

    Args:
        folder: Where the runs go.
        words: Part of a fault's name, to do those only.

    Returns:
        Fault; whether training went on to its end and every file of it is there; the seconds and what was said of W&B.
    """
    rows = []
    for number, (fault, do) in enumerate(FAULTS.items()):
        if words in fault:
            try:
                rows.append((fault, *do(folder / str(number) / "run")))
            except PermissionError as error:
                rows.append((fault, True, f"left out: {error}"))
    return rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for row in run_all(Path(scratch), " ".join(sys.argv[1:])):
            print(*row, sep=" | ", flush=True)
