import os
import signal
import subprocess
import sys
import textwrap

import pytest

from depthnet.run.signals import Signals, Stopped, requeue


def test_a_first_signal_is_noted_by_the_patient_and_ends_the_others():
    with Signals() as signals:
        signals.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(Stopped) as stop:
            signals.check()
        assert stop.value.code == 143
    with Signals() as signals, pytest.raises(Stopped) as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.code == 130


def test_what_was_there_before_handles_signals_again_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a library's own
        signals.renew()
        assert signal.getsignal(signal.SIGTERM) == signals._handle
    assert signal.getsignal(signal.SIGTERM) == before
    signals.renew()  # one that does not listen takes nothing over
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_ends_the_process_at_once():
    program = textwrap.dedent(
        """
        import os, signal, time
        from depthnet.run.signals import Signals
        with Signals() as signals:
            signals.patient = True
            os.kill(os.getpid(), signal.SIGINT)
            print("noted", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            print("too late", flush=True)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "noted\n")
    assert "a second signal stops at once" in done.stderr


def test_a_fork_leaves_signals_to_its_parent():
    with Signals() as signals:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0 if signals.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_only_a_slurm_job_listens_to_its_signal(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with Signals():
        assert signal.getsignal(signal.SIGUSR1) == before
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    with Signals():
        assert signal.getsignal(signal.SIGUSR1) != before


@pytest.mark.parametrize(("answer", "words"), [("exit 0", "job 5 is queued again"), ("echo no >&2; exit 1", "(no)")])
def test_slurm_is_asked_to_queue_the_job_again(monkeypatch, tmp_path, answer, words):
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\n[ "$*" = "requeue 5" ] || exit 9\n{answer}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert words in requeue()
    command.unlink()
    assert "could not be queued again" in requeue()
