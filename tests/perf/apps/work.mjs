// What bun.js and node.js share: the work that does not touch HTTP.

export const names = Array.from({ length: 100 }, (_, i) => `Item ${i + 1} <fresh> & "ripe", it's`);

export const hundredKilobytes = "0123456789abcdef".repeat(6400);

export function page(escape) {
  let rows = "";
  for (let i = 0; i < names.length; i++) {
    rows += `<tr><td>${i + 1}</td><td>${escape(names[i])}</td><td>${((i + 1) * 1.5).toFixed(2)}</td></tr>`;
  }
  return (
    "<!DOCTYPE html><html><head><title>Items</title></head><body><table>" +
    `<tr><th>id</th><th>name</th><th>price</th></tr>${rows}</table></body></html>`
  );
}

const element = (i, j) => 1 / (((i + j) * (i + j + 1)) / 2 + i + 1);

function times(x, y, n) {
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += element(i, j) * x[j];
    y[i] = sum;
  }
}

function timesTransposed(x, y, n) {
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += element(j, i) * x[j];
    y[i] = sum;
  }
}

export function spectralNorm(n) {
  const u = new Array(n).fill(1);
  const v = new Array(n).fill(0);
  const t = new Array(n).fill(0);
  for (let i = 0; i < 10; i++) {
    times(u, t, n);
    timesTransposed(t, v, n);
    times(v, t, n);
    timesTransposed(t, u, n);
  }
  let uv = 0;
  let vv = 0;
  for (let i = 0; i < n; i++) {
    uv += u[i] * v[i];
    vv += v[i] * v[i];
  }
  return Math.sqrt(uv / vv);
}
