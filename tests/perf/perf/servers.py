"""The servers: how each is found, started and named. A server that cannot run says why."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import processes

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
APPS = HERE / "apps"
BUN = HERE / ".peers" / "node_modules" / ".bin" / "bun"


class Missing(Exception):
    """This server cannot be measured here; the text is the reason, printed in the table."""


class Server:
    """A server of the comparison. `command` may write files into `folder`, which lives as long as the process."""

    name = ""
    # Answers with stored bytes; see Workload.fixed_in_hyper.
    floor = False

    def command(self, port, workers, folder):
        raise NotImplementedError

    def version(self):
        raise NotImplementedError


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not installed: run tests/perf/setup") from None
    return (done.stdout + done.stderr).strip()


# Why a binary of this workspace must not be used though an older one may lie there.
NOT_BUILT = {}


def release(binary):
    if reason := NOT_BUILT.get(binary):
        raise Missing(reason)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release" / binary
    if not path.exists():
        raise Missing(f"{path.name} is not built: run without --no-build")
    return str(path)


def _locked(package):
    found = re.search(rf'name = "{package}"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
    return f"{package} {found[1]}" if found else package


class Hyper(Server):
    name, floor = "hyper", True

    def command(self, port, workers, folder):
        return [release("hyper_baseline"), "--port", str(port), "--workers", str(workers)]

    def version(self):
        return _locked("hyper")


class Axum(Server):
    name = "axum"

    def command(self, port, workers, folder):
        return [release("axum_baseline"), "--port", str(port), "--workers", str(workers)]

    def version(self):
        return f"{_locked('axum')}, {_locked('serde_json')}"


class Rover(Server):
    name = "rover"

    def command(self, port, workers, folder):
        return self.arguments(release("rover"), port, workers)

    @staticmethod
    def arguments(binary, port, workers):
        app = str((APPS / "rover.lua").relative_to(ROOT))
        return [binary, app, "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers),
                "--log-level", "warn"]

    def version(self):
        commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
        return f"{_output(release('rover'), '--version') or 'rover'} ({commit})"


class Nginx(Server):
    name = "nginx"

    def command(self, port, workers, folder):
        # A service's folder is not in every user's PATH.
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if not nginx:
            raise Missing("nginx is not installed: run tests/perf/setup")
        modules = re.search(r"--modules-path=(\S+)", _output(nginx, "-V"))[1]
        if not Path(modules, "ngx_http_lua_module.so").exists():
            raise Missing("nginx has no Lua module: run tests/perf/setup")
        values = {"PORT": port, "WORKERS": workers, "MODULES": modules, "APPS": APPS,
                  "LISTEN": "reuseport" if workers > 1 else ""}
        config = re.sub(r"@([A-Z]+)@", lambda m: str(values[m[1]]), self._without_comments())
        (folder / "nginx.conf").write_text(config)
        (folder / "routes200.conf").write_text("".join(
            f"location /api/v1/res{i}/ {{ content_by_lua_block {{ app.item() }} }}\n" for i in range(200)))
        return [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]

    def _without_comments(self):
        lines = (APPS / "nginx.conf").read_text().splitlines()
        return "\n".join(line for line in lines if not line.lstrip().startswith("#"))

    def version(self):
        module = _output("dpkg-query", "-W", "-f", "${Package} ${Version}, ", "libnginx-mod-http-lua",
                         "lua-resty-core", "lua-cjson", "libluajit2-5.1-2")
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        return f"{_output(nginx, '-v').removeprefix('nginx version: ')}, {module.rstrip(', ')}"


class Bun(Server):
    name = "bun"

    def command(self, port, workers, folder):
        bun = self._binary()
        return [bun, str(APPS / "bun.mjs"), str(port), str(workers)]

    def _binary(self):
        found = str(BUN) if BUN.exists() else shutil.which("bun")
        if not found:
            raise Missing("bun is not installed: run tests/perf/setup")
        return found

    def version(self):
        return f"bun {_output(self._binary(), '--version')}"


class Node(Server):
    name = "node"

    def command(self, port, workers, folder):
        node = shutil.which("node")
        if not node:
            raise Missing("node is not installed: run tests/perf/setup")
        return [node, str(APPS / "node.mjs"), str(port), str(workers)]

    def version(self):
        return f"node {_output('node', '--version')}"


ALL = [Hyper(), Rover(), Axum(), Nginx(), Bun(), Node()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def started(server, workers, cores):
    """Starts `server` on `cores` and yields (process, port, moment of the start); stops it whatever happens.

    Raises Missing when there is nothing to start. `process.args` is the command, `process.log` what it prints."""
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers give up root and still need it
        port = free_port()
        command = server.command(port, workers, folder)
        began = time.perf_counter()
        process = processes.start(command, cores, folder / "log", cwd=ROOT)
        process.log = folder / "log"
        try:
            yield process, port, began
        finally:
            processes.stop(process)


@contextlib.contextmanager
def running(server, workers, cores):
    """Like `started`, but waits until the server accepts connections, and yields (process, port).

    Raises Missing when it ends or does not listen."""
    with started(server, workers, cores) as (process, port, began):
        while not connects(port):
            if process.poll() is not None:
                raise Missing(f"ended at once with code {process.returncode}: {_last_line(process.log)}")
            if time.perf_counter() - began > 10.0:
                raise Missing(f"does not listen after 10 s: {_last_line(process.log)}")
            time.sleep(0.005)
        if workers > 1:
            time.sleep(0.3)  # the other processes of Bun and Node
        yield process, port


def _last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"
