"""The workloads: what is sent, what must come back, how it is loaded. The load itself is in ../wrk/NAME.lua."""

import json
from dataclasses import dataclass
from pathlib import Path

from .http import Connection, WrongAnswer, request

SCRIPTS = Path(__file__).resolve().parent.parent / "wrk"

TEXT, HTML, JSON = "text/plain", "text/html", "application/json"


@dataclass
class Workload:
    name: str
    about: str
    send: bytes
    kind: str
    answer: bytes
    connections: int = 64
    pipeline: int = 1
    closes: bool = False
    script: str = ""
    # Bare hyper does not read parameters: there the status, the type and the length must match.
    fixed_in_hyper: bool = False
    idle: int = 0

    def __post_init__(self):
        self.script = str(SCRIPTS / f"{self.script or self.name}.lua")

    def check(self, port, floor=False):
        """Raises WrongAnswer unless the server answers this workload's request, alone and pipelined, as it must."""
        with Connection(port) as connection:
            connection.send(self.send * self.pipeline)
            for _ in range(self.pipeline):
                self._check(connection.read(), floor and self.fixed_in_hyper)
            if self.closes and not connection.closed_by_peer():
                raise WrongAnswer("the connection stays open after Connection: close")

    def _check(self, answer, length_only):
        if answer.status != 200:
            raise WrongAnswer(f"status {answer.status}, body {answer.body[:120]!r}")
        kind = answer.headers.get("content-type", "")
        if kind.split(";")[0] != self.kind:
            raise WrongAnswer(f"content type {kind!r}, not {self.kind!r}")
        if len(answer.body) != len(self.answer):
            raise WrongAnswer(f"{len(answer.body)} bytes, not {len(self.answer)}: {answer.body[:120]!r}")
        if length_only or answer.body == self.answer:
            return
        # The order of keys is free.
        if self.kind != JSON or json.loads(answer.body) != json.loads(self.answer):
            raise WrongAnswer(f"another body: {answer.body[:120]!r}")


def _page():
    rows = "".join(
        f"<tr><td>{i}</td><td>Item {i} &lt;fresh&gt; &amp; &quot;ripe&quot;, it&#x27;s</td><td>{i * 1.5:.2f}</td></tr>"
        for i in range(1, 101)
    )
    return (
        "<!DOCTYPE html><html><head><title>Items</title></head><body><table>"
        f"<tr><th>id</th><th>name</th><th>price</th></tr>{rows}</table></body></html>"
    ).encode()


def _order(name):
    """The stored document, and the same with its revision raised."""
    order = (SCRIPTS / name).read_bytes()
    return request("POST", "/update", body=order), order.replace(b'"revision":1', b'"revision":2', 1)


def all_workloads():
    hello = b'{"message":"Hello, World!"}'
    document = b'{"message":"Hello, World!","number":42,"list":[1,2,3],"nested":{"flag":true}}'
    small, small_answer = _order("order-1k.json")
    large, large_answer = _order("order-64k.json")
    get_json = request("GET", "/json")
    return [
        Workload("plaintext16", "GET /plaintext, pipelined ×16", request("GET", "/plaintext"), TEXT,
                 b"Hello, World!", pipeline=16),
        Workload("json", "GET /json", get_json, JSON, hello),
        Workload("json16", "GET /json, pipelined ×16", get_json, JSON, hello, pipeline=16),
        Workload("echo", "POST /echo, a small document decoded and encoded", request("POST", "/echo", body=document),
                 JSON, document),
        Workload("echo_get", "GET /echo, one query value decoded", request("GET", "/echo?message=Hello%2C+World%21"),
                 JSON, hello),
        Workload("echo_params", "GET /echo/{name}/{id}, 1 000 paths", request("GET", "/echo/ada%20lovelace/1234"),
                 JSON, b'{"name":"ada lovelace","id":"1234"}', fixed_in_hyper=True),
        Workload("routes200", "one route of 200; 2 parameters, a query value, 2 headers",
                 request("GET", "/api/v1/res137/1234/items/1766?q=red+shoes",
                         [("Accept-Language", "en-GB"), ("X-Client", "perf")]),
                 JSON, b'{"id":"1234","item":"1766","q":"red shoes","lang":"en-GB","client":"perf"}',
                 fixed_in_hyper=True),
        Workload("post1k", "POST 1 KB of JSON, decoded, changed, encoded", small, JSON, small_answer),
        Workload("post64k", "POST 64 KB of JSON, decoded, changed, encoded", large, JSON, large_answer),
        Workload("html100", "a page of 100 rows built with escaping", request("GET", "/html"), HTML, _page()),
        Workload("body100k", "an answer of 100 KiB", request("GET", "/body100k"), TEXT, b"0123456789abcdef" * 6400),
        Workload("conn1000", "GET /json, 1 000 connections", get_json, JSON, hello, connections=1000, script="json"),
        Workload("close", "GET /json, a connection for each request",
                 request("GET", "/json", [("Connection", "close")]), JSON, hello, closes=True),
        Workload("cpu", "spectral norm of 100, in the handler", request("GET", "/cpu"), TEXT, b"1.274219991",
                 connections=16),
        Workload("idle10k", "10 000 idle keep-alive connections", get_json, JSON, hello, script="json", idle=10_000),
    ]
