// The workloads of tests/perf for Node's http: the same answers as rover.lua. `node node.mjs PORT WORKERS`
import cluster from "node:cluster";
import { createServer } from "node:http";
import { hundredKilobytes, page, spectralNorm } from "./work.mjs";

const port = Number(process.argv[2]);
const workers = Number(process.argv[3] ?? 1);

const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
const escape = (s) => s.replace(/[&<>"']/g, (c) => entities[c]);

function answer(response, type, body) {
  response.writeHead(200, { "Content-Type": type, "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}
const text = (response, body) => answer(response, "text/plain; charset=utf-8", body);
const html = (response, body) => answer(response, "text/html; charset=utf-8", body);
const json = (response, value) => answer(response, "application/json", JSON.stringify(value));

function withBody(request, then) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => then(JSON.parse(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))));
}

function item(request, response, id, item, query) {
  json(response, {
    id,
    item,
    q: new URLSearchParams(query).get("q"),
    lang: request.headers["accept-language"],
    client: request.headers["x-client"],
  });
}

const fixed = new Map([
  ["GET /plaintext", (_, response) => text(response, "Hello, World!")],
  ["GET /json", (_, response) => json(response, { message: "Hello, World!" })],
  ["GET /echo", (_, response, query) => json(response, { message: new URLSearchParams(query).get("message") })],
  ["POST /echo", (request, response) => withBody(request, (body) => json(response, body))],
  [
    "POST /update",
    (request, response) =>
      withBody(request, (order) => {
        order.revision += 1;
        json(response, order);
      }),
  ],
  ["GET /html", (_, response) => html(response, page(escape))],
  ["GET /body100k", (_, response) => text(response, hundredKilobytes)],
  ["GET /cpu", (_, response) => text(response, spectralNorm(100).toFixed(9))],
]);

const resources = new Map();
for (let i = 0; i < 200; i++) resources.set(`res${i}`, item);

function serve(request, response) {
  const at = request.url.indexOf("?");
  const path = at < 0 ? request.url : request.url.slice(0, at);
  const query = at < 0 ? "" : request.url.slice(at + 1);
  const handler = fixed.get(`${request.method} ${path}`);
  if (handler) return handler(request, response, query);

  const segments = path.split("/");
  if (segments[1] === "echo" && segments.length === 4) {
    return json(response, { name: decodeURIComponent(segments[2]), id: decodeURIComponent(segments[3]) });
  }
  const resource = segments[1] === "api" && segments[2] === "v1" && segments[5] === "items" && resources.get(segments[3]);
  if (resource && segments.length === 7) {
    return resource(request, response, decodeURIComponent(segments[4]), decodeURIComponent(segments[6]), query);
  }
  response.writeHead(404).end();
}

if (workers > 1 && cluster.isPrimary) {
  for (let i = 0; i < workers; i++) cluster.fork();
} else {
  const server = createServer({ keepAliveTimeout: 300_000, requestTimeout: 0, noDelay: true }, serve);
  server.listen({ host: "127.0.0.1", port, backlog: 4096 });
}
process.on("SIGTERM", () => process.exit(0));
