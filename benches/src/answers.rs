//! The answers of the workloads in `tests/perf`, computed the way the Lua app computes them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;

/// Content type of JSON answers.
pub const JSON: &str = "application/json";
/// Content type of text answers.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Content type of HTML answers.
pub const HTML: &str = "text/html; charset=utf-8";

/// Answer of `GET /plaintext`.
pub const PLAINTEXT: &str = "Hello, World!";
/// Answer of `GET /json`, and the length of what `GET /echo` answers in the workload.
pub const MESSAGE: &str = r#"{"message":"Hello, World!"}"#;
/// An answer of `GET /echo/{name}/{id}` as long as every one in the workload.
pub const ECHO_PARAMS: &str = r#"{"name":"ada lovelace","id":"1000"}"#;
/// An answer of the 200-route workload as long as every one in it.
pub const ITEM: &str = r#"{"id":"1000","item":"1000","q":"red shoes","lang":"en-GB","client":"perf"}"#;

/// Routes that the 200-route workload declares.
pub const ROUTES: usize = 200;

/// Answers of `POST /update` for the two stored bodies: the same document with its revision raised by one.
pub static UPDATED_1K: LazyLock<Bytes> = LazyLock::new(|| updated(include_str!("../../tests/perf/wrk/order-1k.json")));
/// See [`UPDATED_1K`].
pub static UPDATED_64K: LazyLock<Bytes> =
    LazyLock::new(|| updated(include_str!("../../tests/perf/wrk/order-64k.json")));

/// Answer of `GET /body100k`: 100 KiB of text.
pub static BODY_100K: LazyLock<Bytes> = LazyLock::new(|| Bytes::from("0123456789abcdef".repeat(6400)));

/// Answer of `GET /html`.
pub static PAGE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(page()));

fn updated(order: &str) -> Bytes {
    Bytes::from(order.trim_end().replacen(r#""revision":1"#, r#""revision":2"#, 1))
}

/// Builds the HTML page of 100 rows, escaping every name.
pub fn page() -> String {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| (1..=100).map(|i| format!("Item {i} <fresh> & \"ripe\", it's")).collect());

    let mut page = String::with_capacity(12 * 1024);
    page.push_str("<!DOCTYPE html><html><head><title>Items</title></head><body><table>");
    page.push_str("<tr><th>id</th><th>name</th><th>price</th></tr>");
    for (i, name) in NAMES.iter().enumerate() {
        let id = i + 1;
        let _ = write!(page, "<tr><td>{id}</td><td>");
        escape(&mut page, name);
        let _ = write!(page, "</td><td>{:.2}</td></tr>", id as f64 * 1.5);
    }
    page.push_str("</table></body></html>");
    page
}

fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#x27;"),
            c => page.push(c),
        }
    }
}

/// Spectral norm of the infinite matrix 1/((i+j)(i+j+1)/2+i+1) cut at `n`: the CPU-bound workload.
pub fn spectral_norm(n: usize) -> f64 {
    let mut u = vec![1.0; n];
    let mut v = vec![0.0; n];
    for _ in 0..10 {
        v = times_transposed(&times(&u));
        u = times_transposed(&times(&v));
    }
    let (mut uv, mut vv) = (0.0, 0.0);
    for (u, v) in u.iter().zip(&v) {
        uv += u * v;
        vv += v * v;
    }
    f64::sqrt(uv / vv)
}

fn element(i: usize, j: usize) -> f64 {
    1.0 / ((i + j) * (i + j + 1) / 2 + i + 1) as f64
}

fn times(x: &[f64]) -> Vec<f64> {
    (0..x.len()).map(|i| x.iter().enumerate().map(|(j, x)| element(i, j) * x).sum()).collect()
}

fn times_transposed(x: &[f64]) -> Vec<f64> {
    (0..x.len()).map(|i| x.iter().enumerate().map(|(j, x)| element(j, i) * x).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spectral_norm_matches_the_published_value() {
        assert_eq!(format!("{:.9}", spectral_norm(100)), "1.274219991");
    }

    #[test]
    fn page_escapes_names() {
        assert!(page().contains("<td>Item 7 &lt;fresh&gt; &amp; &quot;ripe&quot;, it&#x27;s</td><td>10.50</td>"));
    }

    #[test]
    fn an_update_changes_one_digit() {
        assert_eq!((UPDATED_1K.len(), UPDATED_64K.len()), (1024, 65536));
    }
}
