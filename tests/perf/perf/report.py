"""From samples to tables. Ratios are taken within a round, then their median: a slow minute hits both sides."""

import statistics

FLOOR = "hyper"


def summarise(results):
    """{workload: {server: figures or {"missing": reason}}}, with ratios to bare hyper where that ran."""
    return {
        workload: {server: _figures(entry, entries.get(FLOOR, {})) for server, entry in entries.items()}
        for workload, entries in results.items()
    }


def _figures(entry, floor):
    samples = entry.get("samples")
    if not samples:
        return {"missing": entry.get("missing", "no sample")}
    base = floor.get("samples") or []
    if "kb_per_connection" in samples[0]:
        figures = {key: statistics.median(s[key] for s in samples) for key in samples[0]}
        figures["ratio_memory"] = _ratio(samples, base, lambda s: s["kb_per_connection"])
        return figures

    figures = {key: statistics.median(s[key] for s in samples)
               for key in ("cpu_us", "user_us", "sys_us", "rps", "rss_kb", "hwm_kb", "server_cpu", "load_cpu")}
    figures["cpu_us_min"] = min(s["cpu_us"] for s in samples)
    figures["rps_max"] = max(s["rps"] for s in samples)
    figures["foreign_cpu"] = max(s["foreign_cpu"] for s in samples)
    figures["latency_us"] = {key: statistics.median(s["latency_us"][key] for s in samples)
                             for key in samples[0]["latency_us"]}
    figures["errors"] = _sums(s["errors"] for s in samples)
    figures["warmup_statuses"] = _sums(s["warmup_statuses"] for s in samples)
    figures["ratio_cpu"] = _ratio(samples, base, lambda s: s["cpu_us"])
    figures["ratio_rps"] = _ratio(samples, base, lambda s: s["rps"])
    figures["ratio_p50"] = _ratio(samples, base, lambda s: s["latency_us"]["p50"])
    figures["ratio_p99"] = _ratio(samples, base, lambda s: s["latency_us"]["p99"])
    return figures


def _sums(counts):
    total = {}
    for each in counts:
        for key, count in each.items():
            total[key] = total.get(key, 0) + count
    return total


def _ratio(samples, base, figure):
    pairs = [(figure(s), figure(b)) for s, b in zip(samples, base)]
    ratios = [s / b for s, b in pairs if b]
    return statistics.median(ratios) if ratios else None


def markdown(summary, workloads, machine, options):
    parts = [_head(machine, options)]
    for workload in workloads:
        servers = summary[workload.name]
        parts.append(f"## {workload.name}: {workload.about}\n\n"
                     + (_idle_table(servers) if workload.idle else _load_table(servers)))
    return "\n\n".join(parts) + "\n"


def _head(machine, options):
    what, versions = machine_lines(machine)
    how = (f"Workers: {options.workers}; server on cores {_cores(options.server_cores)}, load on cores "
           f"{_cores(options.load_cores)}; {options.rounds} rounds of {options.seconds:g} s after {options.warmup:g} s "
           "of warm-up.")
    return "\n\n".join((what, how, versions))


def machine_lines(machine):
    """What it ran on, in one line; and a list of the servers."""
    what = (f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mb']:,} MB; {machine['system']}, "
            f"Linux {machine['kernel']}; {machine['wrk'].partition(' Copyright')[0]}; {machine['rustc']}")
    return what, "\n".join(f"- {name}: {version}" for name, version in machine["servers"].items())


def _cores(cores):
    return ",".join(map(str, sorted(cores)))


def _load_table(servers):
    rows = [["server", "CPU µs/req", "min", "user", "sys", "× hyper", "req/s", "× hyper", "p50", "p90", "p99", "p99.9",
             "p99.99", "RSS MB", "peak", "cores: server", "load", "other", "statuses (warm-up)", "errors"]]
    for name, f in servers.items():
        if "missing" in f:
            rows.append([name, f"MISSING: {f['missing']}"])
            continue
        latency = [_micros(f["latency_us"][key]) for key in ("p50", "p90", "p99", "p99.9", "p99.99")]
        rows.append([
            name, f"{f['cpu_us']:.2f}", f"{f['cpu_us_min']:.2f}", f"{f['user_us']:.2f}", f"{f['sys_us']:.2f}",
            _times(f["ratio_cpu"]), f"{f['rps']:,.0f}", _times(f["ratio_rps"]), *latency, f"{f['rss_kb'] / 1024:.1f}",
            f"{f['hwm_kb'] / 1024:.1f}", f"{f['server_cpu']:.2f}", f"{f['load_cpu']:.2f}", f"{f['foreign_cpu']:.2f}",
            _counts(f["warmup_statuses"]), _counts({k: n for k, n in f["errors"].items() if n}) or "0",
        ])
    return table(rows)


def _idle_table(servers):
    rows = [["server", "KB/connection", "× hyper", "RSS before, MB", "RSS with all, MB", "connections", "still answer"]]
    for name, f in servers.items():
        if "missing" in f:
            rows.append([name, f"MISSING: {f['missing']}"])
            continue
        rows.append([name, f"{f['kb_per_connection']:.1f}", _times(f["ratio_memory"]),
                     f"{f['rss_before_kb'] / 1024:.1f}", f"{f['rss_kb'] / 1024:.1f}", f"{f['connections']:,.0f}",
                     f"{f['alive']:.0f} of {f['asked_again']:.0f} asked"])
    return table(rows)


def idle_memory_table(rows):
    cells = [["server", "1 worker, MB", "2 workers, MB", "for the second"]]
    for row in rows:
        if "missing" in row:
            cells.append([row["server"], f"MISSING: {row['missing']}"])
            continue
        one, two = row["workers_1_kb"] / 1024, row["workers_2_kb"] / 1024
        cells.append([row["server"], f"{one:.1f}", f"{two:.1f}", f"{two - one:.1f}"])
    return table(cells)


def start_time_table(rows):
    cells = [["server", "first answer, median ms", "min", "max"]]
    for row in rows:
        if "missing" in row:
            cells.append([row["server"], f"MISSING: {row['missing']}"])
        else:
            cells.append([row["server"], *(f"{row[key]:.1f}" for key in ("median_ms", "min_ms", "max_ms"))])
    return table(cells)


def table(rows):
    """Markdown with aligned columns; a short row's last cell stands in the next column and the rest stay empty."""
    width = len(rows[0])
    rows = [row + [""] * (width - len(row)) for row in rows]
    # A reason is a sentence: it may stick out of its column instead of widening it.
    widths = [max(len(row[i]) for row in rows if not row[i].startswith("MISSING")) for i in range(width)]
    lines = ["| " + " | ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                               for i, (cell, w) in enumerate(zip(row, widths))) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _times(ratio):
    return f"{ratio:.2f}" if ratio is not None else "-"


def _counts(counts):
    return " ".join(f"{key}:{count}" for key, count in sorted(counts.items()))


def _micros(value):
    return f"{value:.0f}µs" if value < 10_000 else f"{value / 1000:.1f}ms"
