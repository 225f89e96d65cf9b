"""One load against one running server, and what it cost."""

import json
import os
import shutil
import subprocess
import time

from . import processes
from .http import Connection
from .servers import Missing


def wrk_command(workload, port, seconds, threads=1):
    return ["wrk", f"-t{threads}", f"-c{workload.connections}", f"-d{seconds:g}s", "--timeout", "5s", "--latency",
            "-s", os.path.relpath(workload.script), f"http://127.0.0.1:{port}"]


def wrk(workload, port, seconds, cores, count_statuses=False):
    """Runs wrk and returns the JSON line of wrk/report.lua, with the CPU seconds of wrk to its very end as `own_cpu`."""
    if not shutil.which("wrk"):
        raise Missing("wrk is not installed: run tests/perf/setup")
    env = dict(os.environ, PERF_STATUSES="1" if count_statuses else "0")
    with processes.pinned(cores):
        # A thread for each core: one alone keeps two workers so little busy that they sleep between requests.
        process = subprocess.Popen(wrk_command(workload, port, seconds, len(cores)), env=env, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    before = os.times()
    try:
        output, _ = process.communicate(timeout=seconds + 30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    after = os.times()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        raise Missing(f"wrk failed with code {process.returncode}: {output.strip()[-200:]}")
    result = json.loads(lines[-1])
    result["own_cpu"] = (after.children_user + after.children_system) - (
        before.children_user + before.children_system)
    return result


def timed(workload, process, port, seconds, warmup, cores):
    """Warm-up, then the measured run: one sample of the table."""
    warm = wrk(workload, port, warmup, cores, count_statuses=True)
    busy, began, cpu = processes.machine_busy_seconds(), time.monotonic(), processes.cpu_seconds(process.pid)
    result = wrk(workload, port, seconds, cores)
    user, system = (after - before for after, before in zip(processes.cpu_seconds(process.pid), cpu))
    elapsed = time.monotonic() - began
    foreign = processes.machine_busy_seconds() - busy - user - system - result["own_cpu"]

    requests, duration = result["requests"], result["duration_us"] / 1e6
    if not requests:
        raise Missing("no request was completed")
    memory = processes.memory_kb(process.pid)
    return {
        "requests": requests,
        "rps": requests / duration,
        "cpu_us": (user + system) / requests * 1e6,
        "user_us": user / requests * 1e6,
        "sys_us": system / requests * 1e6,
        "latency_us": result["latency_us"],
        "errors": result["errors"],
        "warmup_statuses": warm["statuses"],
        "rss_kb": memory["rss"],
        "hwm_kb": memory["hwm"],
        "server_cpu": (user + system) / duration,
        "load_cpu": result["cpu_s"] / duration,
        "foreign_cpu": max(foreign, 0.0) / elapsed,
    }


def idle(workload, process, port):
    """Opens idle keep-alive connections, each after one answered request, and weighs the server before and after."""
    opened = []
    try:
        # The first few make the server allocate what it needs in any case.
        for _ in range(64):
            opened.append(_asked(workload, port))
        time.sleep(0.5)
        before = processes.memory_kb(process.pid)
        while len(opened) < 64 + workload.idle:
            opened.append(_asked(workload, port))
        time.sleep(1.0)
        after = processes.memory_kb(process.pid)
        alive = 0
        for connection in opened[::100]:
            connection.send(workload.send)
            alive += connection.read().status == 200
        return {
            "connections": workload.idle,
            "asked_again": len(opened[::100]),
            "alive": alive,
            "rss_before_kb": before["rss"],
            "rss_kb": after["rss"],
            "hwm_kb": after["hwm"],
            "kb_per_connection": (after["rss"] - before["rss"]) / workload.idle,
        }
    finally:
        for connection in opened:
            connection.socket.close()


def _asked(workload, port):
    connection = Connection(port)
    connection.send(workload.send)
    connection.read()
    return connection
