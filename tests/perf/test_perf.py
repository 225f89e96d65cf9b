"""Tests of the runner itself: python3 -m unittest discover tests/perf"""

import socket
import threading
import unittest

from perf import compare, report
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
