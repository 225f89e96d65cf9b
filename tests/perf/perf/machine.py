"""What the figures were measured on."""

import os
import platform
import subprocess
from pathlib import Path

from .servers import ROOT, Missing


def facts(servers):
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "system": _field("/etc/os-release", "PRETTY_NAME=").strip('"'),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "rustc": _first_line("rustc", "--version"),
        "wrk": _first_line("wrk", "-v"),
        "servers": {server.name: _version(server) for server in servers},
    }


def _version(server):
    try:
        return server.version()
    except Missing as reason:
        return f"MISSING: {reason}"


def _cpu_model():
    return _field("/proc/cpuinfo", "model name").lstrip("\t :") or platform.machine()


def _field(path, prefix):
    for line in Path(path).read_text().splitlines():
        if line.startswith(prefix):
            return line.removeprefix(prefix)
    return ""


def _first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        return "missing"
    return (done.stdout or done.stderr).partition("\n")[0]
