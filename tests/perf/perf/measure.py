"""The order of the measurements: every round visits every server of a workload, so that the machine's mood hits all."""

import statistics
import sys
import time

from . import load, processes, servers
from .http import Connection, WrongAnswer
from .servers import Missing


def progress(text):
    print(text, file=sys.stderr, flush=True)


def run_load(chosen_servers, chosen_workloads, options):
    """{workload: {server: {"samples": [...]} or {"missing": reason}}}"""
    results = {w.name: {s.name: {"samples": []} for s in chosen_servers} for w in chosen_workloads}
    for round_number in range(options.rounds):
        for workload in chosen_workloads:
            # Another server goes first in each round.
            shift = round_number % len(chosen_servers)
            for server in chosen_servers[shift:] + chosen_servers[:shift]:
                entry = results[workload.name][server.name]
                if "missing" in entry:
                    continue
                try:
                    sample, entry["command"] = one(server, workload, options)
                except (Missing, WrongAnswer, OSError) as reason:
                    # A server that fails once has no figures: a table of the rounds that went well would flatter it.
                    results[workload.name][server.name] = {"missing": reason_text(reason)}
                    progress(f"{round_number + 1}/{options.rounds} {workload.name:12} {server.name:6} {reason}")
                    continue
                entry["samples"].append(sample)
                if workload.idle:
                    figure = f"{sample['kb_per_connection']:.1f} KB/connection"
                else:
                    figure = f"{sample['cpu_us']:.2f} µs/request, {sample['rps']:,.0f}/s"
                progress(f"{round_number + 1}/{options.rounds} {workload.name:12} {server.name:6} {figure}")
    return results


def reason_text(reason):
    return str(reason) if isinstance(reason, Missing) else f"{type(reason).__name__}: {reason}"


def one(server, workload, options):
    with servers.running(server, options.workers, options.server_cores) as (process, port):
        command = " ".join(process.args)
        workload.check(port, server.floor)
        if workload.idle:
            return load.idle(workload, process, port), command
        sample = load.timed(workload, process, port, options.seconds, options.warmup, options.load_cores)
        workload.check(port, server.floor)
        return sample, command


def idle_memory(chosen_servers, rounds, cores):
    """RSS of a server that has answered one request, with one worker and with two."""
    rows = []
    for server in chosen_servers:
        row = {"server": server.name}
        for workers in (1, 2):
            try:
                samples = [_rss_after_one_answer(server, workers, cores) for _ in range(rounds)]
                row[f"workers_{workers}_kb"] = statistics.median(samples)
            except (Missing, WrongAnswer, OSError) as reason:
                row["missing"] = str(reason)
        rows.append(row)
    return rows


def _rss_after_one_answer(server, workers, cores):
    with servers.running(server, workers, cores) as (process, port):
        _ask(port)
        time.sleep(0.3)
        return processes.memory_kb(process.pid)["rss"]


def start_time(chosen_servers, workers, rounds, cores):
    """Milliseconds from just before the process is made to its first complete answer, `rounds` times, interleaved.

    The row `true` is the same for /bin/true until it has ended: what making a process costs at all."""
    times = {"true": []} | {server.name: [] for server in chosen_servers}
    missing = {}
    for _ in range(rounds):
        times["true"].append(_time_of_true(cores))
        for server in chosen_servers:
            if server.name not in missing:
                try:
                    times[server.name].append(_time_to_answer(server, workers, cores))
                except (Missing, WrongAnswer, OSError) as reason:
                    missing[server.name] = str(reason)
    return [
        {"server": name, "missing": missing[name]} if name in missing else
        {"server": name, "median_ms": statistics.median(all_ms), "min_ms": min(all_ms), "max_ms": max(all_ms)}
        for name, all_ms in times.items()
    ]


def _time_of_true(cores):
    began = time.perf_counter()
    process = processes.start(["/bin/true"], cores, "/dev/null")
    process.wait()
    return (time.perf_counter() - began) * 1e3


def _time_to_answer(server, workers, cores):
    with servers.started(server, workers, cores) as (process, port, began):
        while True:
            try:
                _ask(port)
                return (time.perf_counter() - began) * 1e3
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise Missing(f"ended at once with code {process.returncode}") from None
                if time.perf_counter() - began > 10.0:
                    raise Missing("no answer within 10 s") from None
                time.sleep(0.0002)


def _ask(port):
    with Connection(port) as connection:
        connection.send(b"GET /json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        if connection.read().status != 200:
            raise WrongAnswer("GET /json is not 200")
