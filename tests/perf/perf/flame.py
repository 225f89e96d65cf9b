"""A flame graph of Rover under the load of a workload."""

import os
import subprocess
import sys
from pathlib import Path

from . import load, servers


class SampledRover(servers.Rover):
    """Rover as built for profilers, started by tests/perf/flame, which writes the graph when it is told to stop."""

    def __init__(self, output, title, frequency):
        self.output, self.title, self.frequency = output, title, frequency

    def command(self, port, workers, folder):
        target = Path(os.environ.get("CARGO_TARGET_DIR", servers.ROOT / "target"))
        flame = [str(target / "release/flame"), "--output", str(self.output), "--title", self.title,
                 "--frequency", str(self.frequency), "--"]
        return flame + self.arguments(str(target / "profiling/rover"), port, workers)


def build():
    for command in (["-p", "flame", "--release"], ["-p", "rover-cli", "--profile", "profiling"]):
        if subprocess.run(["cargo", "build", "--quiet", *command]).returncode != 0:
            sys.exit(f"`cargo build {' '.join(command)}` failed")


def graph(workload, output, seconds, frequency):
    """Writes the graph and returns the requests that were answered for each second of it."""
    server = SampledRover(output, f"rover: {workload.about}", frequency)
    # The sampler shares the server's core: it wakes when the clock says, in the middle of whatever runs there. On the
    # core of the load it would wake rather when wrk rests, and those are not the moments that we want to see.
    with servers.running(server, 1, {0}) as (_, port):
        workload.check(port)
        result = load.wrk(workload, port, seconds, {1})
        workload.check(port)
    return result["requests"] / (result["duration_us"] / 1e6)
