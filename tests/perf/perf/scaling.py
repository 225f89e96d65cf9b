"""One worker on one core against two on two, in one run. wrk takes its share of the same two cores, so requests per
second cannot double here; CPU per request tells whether two workers stand in each other's way."""

import argparse
import statistics

from . import measure, report
from .http import WrongAnswer
from .servers import Missing

# The server's cores and the load's.
PLACES = {1: ({0}, {1}), 2: ({0, 1}, {0, 1})}


def run(chosen_servers, chosen_workloads, options):
    """{workload: {server: {"1": [samples], "2": [samples]} or {"missing": reason}}}, interleaved."""
    results = {w.name: {s.name: {"1": [], "2": []} for s in chosen_servers} for w in chosen_workloads}
    for round_number in range(options.rounds):
        for workload in chosen_workloads:
            shift = round_number % len(chosen_servers)
            for server in chosen_servers[shift:] + chosen_servers[:shift]:
                # The order turns as well, so that neither always comes first.
                for workers in (1, 2) if round_number % 2 == 0 else (2, 1):
                    entry = results[workload.name][server.name]
                    if "missing" in entry:
                        continue
                    server_cores, load_cores = PLACES[workers]
                    place = argparse.Namespace(workers=workers, server_cores=server_cores, load_cores=load_cores,
                                               seconds=options.seconds, warmup=options.warmup)
                    label = f"{round_number + 1}/{options.rounds} {workload.name:12} {server.name:6} ×{workers}"
                    try:
                        sample, _ = measure.one(server, workload, place)
                    except (Missing, WrongAnswer, OSError) as reason:
                        results[workload.name][server.name] = {"missing": measure.reason_text(reason)}
                        measure.progress(f"{label} {reason}")
                        continue
                    entry[str(workers)].append(sample)
                    measure.progress(f"{label} {sample['cpu_us']:.2f} µs/request, {sample['rps']:,.0f}/s")
    return results


def summarise(results):
    """{workload: {server: figures or {"missing": reason}}}; ratios are medians of those within a round."""
    return {workload: {server: _figures(entry) for server, entry in entries.items()}
            for workload, entries in results.items()}


def _figures(entry):
    if "missing" in entry:
        return entry
    pairs = list(zip(entry["1"], entry["2"]))
    figures = {}
    for key in ("cpu_us", "rps"):
        for index, workers in enumerate(("1", "2")):
            figures[f"{key}_{workers}"] = statistics.median(pair[index][key] for pair in pairs)
        figures[f"ratio_{key}"] = statistics.median(two[key] / one[key] for one, two in pairs)
    for index, workers in enumerate(("1", "2")):
        for key in ("server_cpu", "load_cpu"):
            figures[f"{key}_{workers}"] = statistics.median(pair[index][key] for pair in pairs)
    # What two workers would serve on two cores of their own.
    figures["scaling"] = 2.0 / figures["ratio_cpu_us"]
    return figures


def markdown(summary, workloads, machine, options):
    parts = [report.machine_lines(machine)[0],
             f"One worker: server on core 0, load on core 1. Two workers: both on cores 0 and 1, which they share; the "
             f"cores used tell how. {options.rounds} rounds of {options.seconds:g} s after {options.warmup:g} s of "
             "warm-up; ratios are medians of those within a round. *Requests* is what CPU per request leaves of twice "
             "the requests of one worker on two cores of the server's own.",
             report.machine_lines(machine)[1]]
    for workload in workloads:
        parts.append(f"## {workload.name}: {workload.about}\n\n{_table(summary[workload.name])}")
    return "\n\n".join(parts) + "\n"


def _table(by_server):
    rows = [["server", "CPU µs/req: 1 worker", "2 workers", "ratio", "requests", "req/s: 1 worker", "2 workers",
             "ratio", "cores of the server: 1", "2", "of the load: 1", "2"]]
    for name, f in by_server.items():
        if "missing" in f:
            rows.append([name, f"MISSING: {f['missing']}"])
            continue
        rows.append([name, f"{f['cpu_us_1']:.2f}", f"{f['cpu_us_2']:.2f}", f"{f['ratio_cpu_us']:.2f}",
                     f"{f['scaling']:.2f} ×", f"{f['rps_1']:,.0f}", f"{f['rps_2']:,.0f}", f"{f['ratio_rps']:.2f}",
                     f"{f['server_cpu_1']:.2f}", f"{f['server_cpu_2']:.2f}", f"{f['load_cpu_1']:.2f}",
                     f"{f['load_cpu_2']:.2f}"])
    return report.table(rows)
