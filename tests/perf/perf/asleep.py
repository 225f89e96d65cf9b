"""What handlers that wait cost, and what a fast route beside them notices."""

import contextlib
import json
import statistics
import time

from . import processes, servers
from .http import Connection, request

# Until memory has settled after a burst of answers, in seconds.
SETTLE = 1.0


class Asleep(servers.Rover):
    """Rover with an app of its own."""

    def command(self, port, workers, folder):
        app = str((servers.APPS / "asleep.lua").relative_to(servers.ROOT))
        return [servers.release("rover"), app, "--port", str(port), "--workers", str(workers), "--log-level", "error"]


def run(options):
    """One sample for each round, each with a fresh process on core 0."""
    samples = []
    for _ in range(options.rounds):
        with (servers.running(Asleep(), 1, {0}) as (process, port), processes.pinned({1}),
              contextlib.ExitStack() as opened):
            samples.append(sample(process, port, options, opened))
    return samples


def sample(process, port, options, opened):
    def connect():
        return opened.enter_context(Connection(port, options.seconds * 3 + 30))

    probe = connect()

    def get(path, connection=probe):
        connection.send(request("GET", path))
        return connection.read().body

    def weigh():
        time.sleep(SETTLE)
        lua = json.loads(get("/memory"))["lua"]
        return processes.memory_kb(process.pid)["rss"] * 1024, lua

    def latencies():
        times = []
        for _ in range(options.requests):
            began = time.perf_counter()
            get("/fast")
            times.append((time.perf_counter() - began) * 1e6)
        times.sort()
        return {"p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}

    handlers = [connect() for _ in range(options.handlers)]
    for connection in handlers:
        get("/fast", connection)
    alone = latencies()
    rss, lua = weigh()
    waves = []
    for _ in range(2):
        for connection in handlers:
            connection.send(request("GET", f"/asleep/{options.seconds}"))
        while json.loads(get("/count"))["asleep"] < options.handlers:
            time.sleep(0.01)
        rss_asleep, lua_asleep = weigh()
        beside = latencies()
        still = json.loads(get("/count"))["asleep"]
        if still != options.handlers:
            raise servers.Missing(f"only {still} still slept at the end: give more --seconds")
        for connection in handlers:
            assert connection.read().body == b"awake"
        waves.append({"rss": rss_asleep - rss, "lua": lua_asleep - lua, "beside": beside})
    rss_after, lua_after = weigh()
    return {"handlers": options.handlers, "alone": alone, "waves": waves,
            "after": {"rss": rss_after - rss, "lua": lua_after - lua}}


def markdown(samples, facts):
    """Medians over the rounds, in bytes for each handler and microseconds for each request."""
    n = samples[0]["handlers"]

    def median(pick):
        return statistics.median(pick(sample) for sample in samples)

    lines = [f"## {n} handlers asleep in one worker", "", f"{facts['cpu']}, {len(samples)} rounds, medians.", "",
             "| | RSS beyond idle connections, bytes each | of which Lua's heap | beyond it | fast route p50 µs | p99 µs |",
             "|---|---|---|---|---|---|",
             f"| nobody asleep | | | | {median(lambda s: s['alone']['p50']):.0f} | {median(lambda s: s['alone']['p99']):.0f} |"]
    for wave, name in enumerate(("asleep", "asleep again")):
        rss = median(lambda s: s["waves"][wave]["rss"]) / n
        lua = median(lambda s: s["waves"][wave]["lua"]) / n
        p50 = median(lambda s: s["waves"][wave]["beside"]["p50"])
        p99 = median(lambda s: s["waves"][wave]["beside"]["p99"])
        lines.append(f"| {name} | {rss:.0f} | {lua:.0f} | {rss - lua:.0f} | {p50:.0f} | {p99:.0f} |")
    rss, lua = median(lambda s: s["after"]["rss"]) / n, median(lambda s: s["after"]["lua"]) / n
    lines.append(f"| awake, all answered | {rss:.0f} | {lua:.0f} | {rss - lua:.0f} | | |")
    return "\n".join(lines) + "\n"
