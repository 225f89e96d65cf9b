"""A run against a saved one, by ratio to the bare hyper of the same run: absolute figures tell of the machine."""

from .report import FLOOR, table

# figure, what it is called, and whether more is better
FIGURES = (
    ("ratio_cpu", "CPU/req", False),
    ("ratio_rps", "req/s", True),
    ("ratio_p99", "p99", False),
    ("ratio_memory", "memory", False),
)

# A tail needs a bigger change than a mean to be believed.
NOISE = {"ratio_p99": 5.0}


def baseline_of(summary, machine, options, before):
    """The stored form; what was not run keeps what `before` says. One for each number of workers."""
    runs = dict((before or {}).get("runs", {}))
    kept = dict(runs.get(str(options.workers), {}).get("workloads", {}))
    for workload, servers in summary.items():
        kept[workload] = kept.get(workload, {}) | {
            name: {key: round(figures[key], 4) for key, _, _ in FIGURES if figures.get(key) is not None}
            for name, figures in servers.items() if "missing" not in figures
        }
    runs[str(options.workers)] = {"machine": {k: machine[k] for k in ("cpu", "cores", "kernel", "servers")},
                                  "workloads": kept}
    return {"runs": runs}


def compare(summary, baseline, workers, tolerance, servers=None):
    """(table, number of figures that got worse) of every server but the floor that both runs have."""
    saved = baseline.get("runs", {}).get(str(workers), {}).get("workloads", {})
    rows, worse = [["workload", "server", "figure (× hyper)", "saved", "now", "change", ""]], 0
    for workload, by_server in summary.items():
        for name, figures in by_server.items():
            if name == FLOOR or (servers and name not in servers):
                continue
            old = saved.get(workload, {}).get(name)
            if old is None or "missing" in figures:
                if old is not None:
                    worse += 1
                reason = "no baseline" if old is None else "WORSE: " + figures["missing"]
                rows.append([workload, name, "", "", "", "", reason])
                continue
            for key, label, more_is_better in FIGURES:
                if not old.get(key) or figures.get(key) is None:
                    continue
                change = figures[key] / old[key] - 1
                gain = change if more_is_better else -change
                limit = tolerance * NOISE.get(key, 1.0)
                verdict = "better" if gain > limit else "WORSE" if gain < -limit else "same"
                worse += verdict == "WORSE"
                rows.append([workload, name, label, f"{old[key]:.3f}", f"{figures[key]:.3f}", f"{change:+.1%}", verdict])
    return table(rows), worse
