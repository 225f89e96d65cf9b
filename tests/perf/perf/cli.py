"""The commands of tests/perf/run."""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import asleep, chart, compare, flame, machine, measure, report, scaling, servers
from .http import WrongAnswer
from .workloads import all_workloads

RESULTS = servers.HERE / "results"
BASELINE = servers.HERE / "baseline.json"


def main():
    options = arguments()
    # `kill` must stop the server that runs at this moment as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir(servers.ROOT)
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("cores 0 and 1 are needed: one for the server, one for the load")
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130


def arguments():
    parser = argparse.ArgumentParser(prog="tests/perf/run", description="Measure Rover against its peers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    load = commands.add_parser("load", help="run workloads and print a table for each")
    load.add_argument("workloads", nargs="*", help="names (see `list`); all without any")
    load.add_argument("--rounds", type=int, default=3)
    load.add_argument("--seconds", type=int, default=3, help="length of one measured run")
    load.add_argument("--warmup", type=int, default=1, help="seconds of the same load before it")
    load.add_argument("--workers", type=int, default=1, choices=(1, 2),
                      help="2: servers and load share both cores; read CPU per request, not requests per second")
    load.add_argument("--save-baseline", action="store_true", help=f"keep the ratios in {BASELINE.name}")
    load.add_argument("--tolerance", type=float, default=0.05, help="change that counts, against the baseline")
    load.add_argument("--fail-on-worse", action="store_true", help="exit with 2 when Rover is worse than the baseline")
    load.set_defaults(run=load_command)

    two = commands.add_parser("scaling", help="CPU per request of one worker and of two, in one run")
    two.add_argument("workloads", nargs="*", help="names (see `list`); `json` without any")
    two.add_argument("--rounds", type=int, default=5)
    two.add_argument("--seconds", type=int, default=3)
    two.add_argument("--warmup", type=int, default=1)
    two.set_defaults(run=scaling_command)

    memory = commands.add_parser("idle-memory", help="memory after one answer, with one worker and with two")
    memory.add_argument("--rounds", type=int, default=3)
    memory.set_defaults(run=idle_memory_command)

    start = commands.add_parser("start-time", help="from the start of the process to its first answer")
    start.add_argument("--rounds", type=int, default=20)
    start.add_argument("--workers", type=int, default=1, choices=(1, 2))
    start.set_defaults(run=start_time_command)

    waiting = commands.add_parser("asleep", help="memory of handlers that wait, and the latency of a fast route beside")
    waiting.add_argument("--handlers", type=int, default=10_000)
    waiting.add_argument("--requests", type=int, default=5_000, help="to the fast route, for its latencies")
    waiting.add_argument("--seconds", type=int, default=12, help="how long each handler sleeps")
    waiting.add_argument("--rounds", type=int, default=3)
    waiting.add_argument("--no-build", action="store_true", help="take the binary of the last release build")
    waiting.set_defaults(run=asleep_command)

    saved = commands.add_parser("compare", help="compare a saved result with the baseline or with another result")
    saved.add_argument("result", type=Path, help="a folder in results/")
    saved.add_argument("with_", nargs="?", type=Path, metavar="other", help=f"another folder; else {BASELINE.name}")
    saved.add_argument("--tolerance", type=float, default=0.05)
    saved.set_defaults(run=compare_command)

    drawn = commands.add_parser("chart", help="draw saved results as chart.svg in the last of their folders")
    drawn.add_argument("results", type=Path, nargs="+", help="folders in results/; a later one's workloads replace")
    drawn.add_argument("--output", type=Path, help="write this file instead")
    drawn.set_defaults(run=chart_command)

    stacks = commands.add_parser("flame", help="draw where Rover spends its time under a workload, as a flame graph")
    stacks.add_argument("workload", help="its name (see `list`)")
    stacks.add_argument("--output", type=Path, help="file to write [default: flame-WORKLOAD.svg]")
    stacks.add_argument("--seconds", type=int, default=10)
    stacks.add_argument("--frequency", type=int, default=499, help="samples a second")
    stacks.add_argument("--no-build", action="store_true", help="take the binaries that are there")
    stacks.set_defaults(run=flame_command)

    names = commands.add_parser("list", help="names of workloads and servers")
    names.set_defaults(run=list_command)

    for each in (load, two, memory, start):
        every = "hyper,rover" if each is two else ",".join(s.name for s in servers.ALL)
        each.add_argument("--servers", default=every, help=f"comma-separated [default: {every}]")
        each.add_argument("--no-build", action="store_true", help="take the binaries of the last release build")
    return parser.parse_args()


def load_command(options):
    chosen = chosen_servers(options)
    workloads = chosen_workloads(options.workloads)
    if options.workers == 1:
        options.server_cores, options.load_cores = {0}, {1}
    else:
        options.server_cores = options.load_cores = {0, 1}
    build(options)

    facts = machine.facts(chosen)
    results = measure.run_load(chosen, workloads, options)
    summary = report.summarise(results)
    text = report.markdown(summary, workloads, facts, options)
    print(text)
    noisy = [w for w, by in summary.items() if any(f.get("foreign_cpu", 0) > 0.2 for f in by.values())]
    if noisy:
        print(f"Other processes took more than a fifth of a core during: {', '.join(noisy)}. Trust ratios at most.\n")

    folder = new_folder()
    record = {"command": sys.argv, "workers": options.workers, "machine": facts, "summary": summary,
              "load": {w.name: load_line(w, options) for w in workloads}, "samples": results}
    write_record(folder / "results.json", record)
    (folder / "table.md").write_text(text)
    if any(not workload.idle for workload in workloads):
        (folder / "chart.svg").write_text(chart.svg([record]))
    print(f"Saved in {folder.relative_to(servers.ROOT)}")

    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else None
    worse = 0
    if baseline and "rover" in options.servers.split(","):
        text, worse = compare.compare(summary, baseline, options.workers, options.tolerance, {"rover"})
        print(f"\nAgainst {BASELINE.name}:\n\n{text}")
    if options.save_baseline:
        stored = compare.baseline_of(summary, facts, options, baseline)
        BASELINE.write_text(json.dumps(stored, indent=1) + "\n")
        print(f"{BASELINE.name} saved")
    return 2 if worse and options.fail_on_worse else 0


def new_folder():
    folder = RESULTS / time.strftime("%Y-%m-%dT%H%M%S")
    folder.mkdir(parents=True)
    return folder


def write_record(path, record):
    # Paths of this machine tell nobody else anything.
    path.write_text(json.dumps(record, indent=1).replace(f"{servers.ROOT}/", "") + "\n")


def scaling_command(options):
    chosen = chosen_servers(options)
    workloads = chosen_workloads(options.workloads or ["json"])
    if idle := [w.name for w in workloads if w.idle]:
        sys.exit(f"{', '.join(idle)} measures memory, not requests")
    build(options)
    facts = machine.facts(chosen)
    results = scaling.run(chosen, workloads, options)
    summary = scaling.summarise(results)
    text = scaling.markdown(summary, workloads, facts, options)
    print(text)
    folder = new_folder()
    record = {"command": sys.argv, "machine": facts, "summary": summary, "samples": results}
    write_record(folder / "scaling.json", record)
    (folder / "scaling.md").write_text(text)
    print(f"Saved in {folder.relative_to(servers.ROOT)}")


def chart_command(options):
    records = [json.loads((folder / "results.json").read_text()) for folder in options.results]
    output = options.output or options.results[-1] / "chart.svg"
    output.write_text(chart.svg(records))
    print(f"Saved as {output}")


def flame_command(options):
    workload = chosen_workloads([options.workload])[0]
    if workload.idle:
        sys.exit(f"{workload.name} is idle: there is nothing to see")
    if not options.no_build:
        flame.build()
    output = options.output or Path(f"flame-{workload.name}.svg")
    try:
        rate = flame.graph(workload, output.resolve(), options.seconds, options.frequency)
    except (servers.Missing, WrongAnswer, OSError) as reason:
        sys.exit(str(reason))
    print(f"Saved as {output}; {rate:,.0f} requests/s meanwhile")


def load_line(workload, options):
    from .load import wrk_command

    if workload.idle:
        return f"{workload.idle} connections, one request on each, then nothing"
    return " ".join(wrk_command(workload, "PORT", options.seconds))


def idle_memory_command(options):
    build(options)
    print(report.idle_memory_table(measure.idle_memory(chosen_servers(options), options.rounds, {0})))


def asleep_command(options):
    build(options, [("rover-cli", ("rover",))])
    facts = machine.facts([asleep.Asleep()])
    samples = asleep.run(options)
    text = asleep.markdown(samples, facts)
    print(text)
    folder = new_folder()
    write_record(folder / "asleep.json", {"command": sys.argv, "machine": facts, "samples": samples})
    (folder / "asleep.md").write_text(text)
    print(f"Saved in {folder.relative_to(servers.ROOT)}")


def start_time_command(options):
    build(options)
    cores = {0} if options.workers == 1 else {0, 1}
    rows = measure.start_time(chosen_servers(options), options.workers, options.rounds, cores)
    print(report.start_time_table(rows))


def compare_command(options):
    record = json.loads((options.result / "results.json").read_text())
    if options.with_:
        other = json.loads((options.with_ / "results.json").read_text())
        workers = argparse.Namespace(workers=other["workers"])
        baseline = compare.baseline_of(other["summary"], other["machine"], workers, None)
    elif BASELINE.exists():
        baseline = json.loads(BASELINE.read_text())
    else:
        sys.exit(f"there is no {BASELINE}: run `load --save-baseline` first, or name a second result")
    print(compare.compare(record["summary"], baseline, record["workers"], options.tolerance)[0])


def list_command(_):
    for workload in all_workloads():
        print(f"{workload.name:12} {workload.about}")
    print(f"\nservers: {', '.join(s.name for s in servers.ALL)}")


def chosen_servers(options):
    names = options.servers.split(",")
    known = {s.name: s for s in servers.ALL}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such server: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def chosen_workloads(names):
    workloads = all_workloads()
    known = {w.name for w in workloads}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such workload: {', '.join(unknown)}; there are {', '.join(w.name for w in workloads)}")
    return [w for w in workloads if not names or w.name in names]


def build(options, packages=(("benches", ("hyper_baseline", "axum_baseline")), ("rover-cli", ("rover",)))):
    """Each package by itself, so that Rover is built as it ships and a failure of one leaves the others."""
    if options.no_build:
        return
    for package, binaries in packages:
        done = subprocess.run(["cargo", "build", "--release", "--quiet", "-p", package])
        if done.returncode != 0:
            servers.NOT_BUILT.update(dict.fromkeys(binaries, f"`cargo build --release -p {package}` failed"))
