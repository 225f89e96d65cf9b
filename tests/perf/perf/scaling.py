"""One worker against two, in one run. wrk takes its share of the same two cores, so requests per second cannot double
here; CPU per request tells whether two workers stand in each other's way. One worker is measured twice: on a core of
its own, and sharing both cores with wrk as two workers must, so that what sharing costs is not laid to the workers."""

import argparse
import statistics

from . import measure, report
from .http import WrongAnswer
from .servers import Missing

# Workers, the server's cores, the load's.
PLACES = {"own": (1, {0}, {1}), "one": (1, {0, 1}, {0, 1}), "two": (2, {0, 1}, {0, 1})}


def run(chosen_servers, chosen_workloads, options):
    """{workload: {server: {place: [samples]} or {"missing": reason}}}, interleaved."""
    results = {w.name: {s.name: {place: [] for place in PLACES} for s in chosen_servers} for w in chosen_workloads}
    for round_number in range(options.rounds):
        for workload in chosen_workloads:
            shift = round_number % len(chosen_servers)
            for server in chosen_servers[shift:] + chosen_servers[:shift]:
                # The order turns as well, so that none always comes first.
                for place in list(PLACES)[::1 if round_number % 2 == 0 else -1]:
                    entry = results[workload.name][server.name]
                    if "missing" in entry:
                        continue
                    workers, server_cores, load_cores = PLACES[place]
                    how = argparse.Namespace(workers=workers, server_cores=server_cores, load_cores=load_cores,
                                             seconds=options.seconds, warmup=options.warmup)
                    label = f"{round_number + 1}/{options.rounds} {workload.name:12} {server.name:6} {place}"
                    try:
                        sample, _ = measure.one(server, workload, how)
                    except (Missing, WrongAnswer, OSError) as reason:
                        results[workload.name][server.name] = {"missing": measure.reason_text(reason)}
                        measure.progress(f"{label} {reason}")
                        continue
                    entry[place].append(sample)
                    measure.progress(f"{label} {sample['cpu_us']:.2f} µs/request, {sample['rps']:,.0f}/s")
    return results


def summarise(results):
    """{workload: {server: figures or {"missing": reason}}}; ratios are medians of those within a round."""
    return {workload: {server: _figures(entry) for server, entry in entries.items()}
            for workload, entries in results.items()}


def _figures(entry):
    if "missing" in entry:
        return entry
    figures = {key: {place: statistics.median(sample[key] for sample in samples) for place, samples in entry.items()}
               for key in ("cpu_us", "rps", "server_cpu", "load_cpu")}
    rounds = list(zip(entry["own"], entry["one"], entry["two"]))
    figures["foreign_cpu"] = max(sample["foreign_cpu"] for samples in entry.values() for sample in samples)
    figures["ratio_cpu_own"] = statistics.median(two["cpu_us"] / own["cpu_us"] for own, _, two in rounds)
    figures["ratio_cpu"] = statistics.median(two["cpu_us"] / one["cpu_us"] for _, one, two in rounds)
    figures["ratio_rps"] = statistics.median(two["rps"] / one["rps"] for _, one, two in rounds)
    # What two workers would serve on two cores of their own.
    figures["scaling"] = 2.0 / figures["ratio_cpu"]
    return figures


def markdown(summary, workloads, machine, options):
    what, versions = report.machine_lines(machine)
    how = (f"*own*: one worker on core 0, load on core 1. *one* and *two* workers: server and load, two threads, share both cores. "
           f"{options.rounds} rounds of {options.seconds:g} s after {options.warmup:g} s of warm-up; ratios are medians "
           "of those within a round. *scaling* is 2 / (two : one), what CPU per request leaves of twice the requests.")
    parts = [what, how, versions]
    parts += [f"## {workload.name}: {workload.about}\n\n{table(summary[workload.name])}" for workload in workloads]
    return "\n\n".join(parts) + "\n"


def table(by_server):
    rows = [["server", "CPU µs/req: own", "one", "two", "two : own", "two : one", "scaling", "req/s: own", "one", "two",
             "two : one", "cores of the server", "of the load", "of others, at worst"]]
    for name, f in by_server.items():
        if "missing" in f:
            rows.append([name, f"MISSING: {f['missing']}"])
            continue
        rows.append([name, *(f"{f['cpu_us'][place]:.2f}" for place in PLACES), f"{f['ratio_cpu_own']:.2f}",
                     f"{f['ratio_cpu']:.2f}", f"{f['scaling']:.2f} ×", *(f"{f['rps'][place]:,.0f}" for place in PLACES),
                     f"{f['ratio_rps']:.2f}", *(" / ".join(f"{f[key][place]:.2f}" for place in PLACES)
                                                for key in ("server_cpu", "load_cpu")), f"{f['foreign_cpu']:.2f}"])
    return report.table(rows)
