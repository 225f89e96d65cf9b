"""Processes: start one pinned to cores, read what it and its children cost, stop it. Knows nothing of HTTP."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def pinned(cores):
    """Children started inside inherit these cores; the runner gets its own back."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(command, cores, log, cwd=None):
    """Starts `command` on `cores`, with its output appended to the file `log`."""
    with pinned(cores), open(log, "ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd)


def stop(process, grace=5.0):
    """SIGTERM, then SIGKILL after `grace` seconds; children that outlive their parent are killed too."""
    children = [pid for pid in tree(process.pid) if pid != process.pid]
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 1.0
    while (left := [pid for pid in children if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid):
    fields = stat(pid)
    return fields is not None and fields[0] != "Z"


def stat(pid):
    """Fields of /proc/PID/stat from the third (state) on; None where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(pid):
    """`pid` and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(entry)):
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for each in found:
        found.extend(parents.get(each, ()))
    return found


def cpu_seconds(pid):
    """(user, sys) seconds that the process and its living descendants have used."""
    user = system = 0
    for each in tree(pid):
        if fields := stat(each):
            user += int(fields[11])
            system += int(fields[12])
    return user * TICK, system * TICK


def memory_kb(pid):
    """VmRSS and VmHWM of the process and its descendants, summed (pages that they share count for each)."""
    total = {"rss": 0, "hwm": 0}
    for each in tree(pid):
        try:
            status = Path(f"/proc/{each}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                total["rss"] += int(line.split()[1])
            elif line.startswith("VmHWM:"):
                total["hwm"] += int(line.split()[1])
    return total


def machine_busy_seconds():
    """CPU seconds that all cores together have spent on anything (stolen time included)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK
