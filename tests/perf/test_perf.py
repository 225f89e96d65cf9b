"""Tests of the runner itself: python3 -m unittest discover tests/perf"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest import mock

from perf import chart, compare, report, scaling, servers
from perf.http import WrongAnswer
from perf.workloads import all_workloads


def sample(cpu_us, rps=1000.0, p99=100.0):
    latency = {"p50": 50.0, "p90": 90.0, "p99": p99, "p99.9": 200.0, "p99.99": 300.0}
    return {"cpu_us": cpu_us, "user_us": 1.0, "sys_us": cpu_us - 1.0, "rps": rps, "rss_kb": 1024, "hwm_kb": 2048,
            "server_cpu": 1.0, "load_cpu": 0.9, "foreign_cpu": 0.0, "latency_us": latency, "errors": {"read": 1},
            "warmup_statuses": {"200": 10}}


class Report(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        # The second round ran on a machine half as fast: the ratio does not notice.
        results = {"json": {"hyper": {"samples": [sample(6.0), sample(12.0)]},
                            "rover": {"samples": [sample(6.6), sample(13.2)]}}}
        rover = report.summarise(results)["json"]["rover"]
        self.assertAlmostEqual(rover["ratio_cpu"], 1.1)
        self.assertEqual(rover["cpu_us_min"], 6.6)
        self.assertEqual(rover["errors"], {"read": 2})

    def test_a_missing_server_keeps_its_row_and_its_reason(self):
        results = {"json": {"hyper": {"samples": [sample(6.0)]}, "bun": {"missing": "bun is not installed"}}}
        summary = report.summarise(results)
        self.assertIn("| bun    | MISSING: bun is not installed |", report._load_table(summary["json"]))


class Compare(unittest.TestCase):
    def test_worse_and_better_follow_the_direction_of_each_figure(self):
        baseline = {"runs": {"1": {"workloads": {"json": {"rover": {"ratio_cpu": 1.0, "ratio_rps": 1.0}}}}}}
        summary = {"json": {"rover": {"ratio_cpu": 1.2, "ratio_rps": 1.2}}}
        text, worse = compare.compare(summary, baseline, 1, 0.05)
        self.assertEqual(worse, 1)
        self.assertRegex(text, r"CPU/req .* \+20\.0% +\|  WORSE")
        self.assertRegex(text, r"req/s .* \+20\.0% +\| better")

    def test_a_server_that_went_missing_is_worse(self):
        baseline = {"runs": {"1": {"workloads": {"json": {"rover": {"ratio_cpu": 1.0}}}}}}
        _, worse = compare.compare({"json": {"rover": {"missing": "crashed"}}}, baseline, 1, 0.05)
        self.assertEqual(worse, 1)


class Chart(unittest.TestCase):
    MACHINE = {"cpu": "A & B <fast>", "cores": 2, "kernel": "6.1"}

    def texts(self, summary):
        """Every text of the chart, which must be well-formed, and the width of every bar by its title."""
        root = ElementTree.fromstring(chart.svg([{"summary": summary, "machine": self.MACHINE, "workers": 1}]))
        space = "{http://www.w3.org/2000/svg}"
        bars = {bar[0].text: float(bar.get("width")) for bar in root.iter(f"{space}rect") if len(bar)}
        return [text.text for text in root.iter(f"{space}text")], bars

    def test_every_server_has_its_bar_and_the_same_factor_the_same_length(self):
        ratios = {"rover": 2.0, "axum": 4.0, "nginx": 16.0, "bun": 0.5, "node": 1.0}
        by_server = {name: {"cpu_us": 1.0, "ratio_cpu": ratio} for name, ratio in ratios.items()}
        texts, bars = self.texts({"json": by_server | {"hyper": {"cpu_us": 1.0, "ratio_cpu": 1.0}}})
        for name, ratio in ratios.items():
            self.assertIn(name, texts)
            self.assertIn(f"{ratio:.2f}", texts)
        self.assertEqual(len(bars), len(servers.ALL) - 1)
        self.assertAlmostEqual(bars["json, axum: 4.00"], 2 * bars["json, rover: 2.00"], delta=0.2)
        self.assertAlmostEqual(bars["json, bun: 0.50"], bars["json, rover: 2.00"], delta=0.2)

    def test_what_is_missing_is_named(self):
        texts, bars = self.texts({"json": {
            "hyper": {"cpu_us": 1.0, "ratio_cpu": 1.0},
            "rover": {"cpu_us": 1.0, "ratio_cpu": 1.1},
            "bun": {"missing": "bun is not installed: run tests/perf/setup"},
        }})
        self.assertIn("missing: bun is not installed: run tests/perf/setup", texts)
        self.assertIn("Not part of the run: axum (all); nginx (all); node (all).", texts)
        self.assertEqual(list(bars), ["json, rover: 1.10"])

    def test_without_bare_hyper_there_is_no_ratio(self):
        texts, bars = self.texts({"json": {"hyper": {"missing": "not built"}, "rover": {"cpu_us": 1.0}}})
        self.assertIn("missing: not built", texts)
        self.assertIn("missing: bare hyper did not run", texts)
        self.assertEqual(bars, {})


class Scaling(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        # The machine got slower by half between the rounds; two workers cost a tenth more than one in both.
        results = {"json": {"rover": {"own": [sample(5.5, 90.0), sample(11.0, 45.0)],
                                      "one": [sample(6.0, 100.0), sample(12.0, 50.0)],
                                      "two": [sample(6.6, 120.0), sample(13.2, 60.0)]},
                            "hyper": {"missing": "not built"}}}
        summary = scaling.summarise(results)
        rover = summary["json"]["rover"]
        self.assertAlmostEqual(rover["ratio_cpu"], 1.1)
        self.assertAlmostEqual(rover["ratio_cpu_own"], 1.2)
        self.assertAlmostEqual(rover["ratio_rps"], 1.2)
        self.assertAlmostEqual(rover["scaling"], 2.0 / 1.1)
        self.assertIn("MISSING: not built", scaling.table(summary["json"]))


class Scripts(unittest.TestCase):
    def test_each_script_loads(self):
        here = Path(__file__).resolve().parent
        for script in ("run", "static", "overload", "slowloris", "proxy", "live"):
            done = subprocess.run([sys.executable, here / script, "--help"], capture_output=True, text=True, timeout=30)
            self.assertEqual(done.returncode, 0, f"{script}: {done.stderr}")


class Missing(unittest.TestCase):
    def test_each_peer_that_is_not_installed_says_so(self):
        with tempfile.TemporaryDirectory() as empty, \
                mock.patch.dict(os.environ, PATH=empty, CARGO_TARGET_DIR=empty), \
                mock.patch.object(servers, "BUN", Path(empty, "bun")), \
                mock.patch.object(servers.shutil, "which", lambda name, path=None: None):
            for server in servers.ALL:
                with self.subTest(server.name), self.assertRaisesRegex(servers.Missing, "is not (installed|built)"):
                    server.command(1, 1, Path(empty))


class Check(unittest.TestCase):
    def check(self, answer):
        """What the check of the workload `json` says to a server that sends `answer`."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def serve():
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)
            thread = threading.Thread(target=serve)
            thread.start()
            try:
                next(w for w in all_workloads() if w.name == "json").check(listener.getsockname()[1])
            finally:
                thread.join()

    def answer(self, body, kind="application/json", status="200 OK"):
        return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def test_the_right_answer_passes(self):
        self.check(self.answer('{"message":"Hello, World!"}'))

    def test_any_other_answer_is_an_error_instead_of_a_figure(self):
        right = '{"message":"Hello, World!"}'
        for wrong in (
            self.answer('{"message":"Hello, Earth!"}'),
            self.answer('{"message":"Hello"}'),
            self.answer(right, kind="text/plain"),
            self.answer(right, status="500 Internal Server Error"),
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"",
        ):
            with self.subTest(wrong), self.assertRaises(WrongAnswer):
                self.check(wrong)


if __name__ == "__main__":
    unittest.main()
