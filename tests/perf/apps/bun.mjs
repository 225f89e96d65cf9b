// The workloads of tests/perf for Bun: the same answers as rover.lua. `bun bun.mjs PORT WORKERS`
import { hundredKilobytes, page, spectralNorm } from "./work.mjs";

const port = Number(process.argv[2]);
const workers = Number(process.argv[3] ?? 1);

const text = { headers: { "Content-Type": "text/plain; charset=utf-8" } };
const html = { headers: { "Content-Type": "text/html; charset=utf-8" } };

function item(request) {
  const { id, item } = request.params;
  const query = new URLSearchParams(request.url.slice(request.url.indexOf("?")));
  return Response.json({
    id,
    item,
    q: query.get("q"),
    lang: request.headers.get("accept-language"),
    client: request.headers.get("x-client"),
  });
}

const routes = {
  "/plaintext": () => new Response("Hello, World!", text),
  "/json": () => Response.json({ message: "Hello, World!" }),
  "/echo": {
    GET: (request) => {
      const query = new URLSearchParams(request.url.slice(request.url.indexOf("?")));
      return Response.json({ message: query.get("message") });
    },
    POST: async (request) => Response.json(await request.json()),
  },
  "/echo/:name/:id": (request) => Response.json({ name: request.params.name, id: request.params.id }),
  "/update": {
    POST: async (request) => {
      const order = await request.json();
      order.revision += 1;
      return Response.json(order);
    },
  },
  "/html": () => new Response(page(Bun.escapeHTML), html),
  "/body100k": () => new Response(hundredKilobytes, text),
  "/cpu": () => new Response(spectralNorm(100).toFixed(9), text),
};
for (let i = 0; i < 200; i++) routes[`/api/v1/res${i}/:id/items/:item`] = item;

Bun.serve({ hostname: "127.0.0.1", port, reusePort: workers !== 1, idleTimeout: 0, routes });

for (let i = 1; i < workers; i++) {
  const child = Bun.spawn([process.execPath, import.meta.path, String(port), "0"], { stdio: ["ignore", 2, 2] });
  process.on("exit", () => child.kill());
}
process.on("SIGTERM", () => process.exit(0));
