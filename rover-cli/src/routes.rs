//! Comes in: the routes of an app. Goes out: the text of `rover routes`. Must not know: where it is printed.

use rover_server::RouteInfo;
use serde_json::json;

/// An aligned table with a heading; each line ends with a newline.
pub(crate) fn table(routes: &[RouteInfo]) -> String {
    let mut rows = vec![["METHOD", "PATH", "HANDLER"].map(str::to_owned)];
    rows.extend(routes.iter().map(|route| {
        let handler = format!("{}:{}", route.file, route.line);
        [route.method.clone(), route.path.clone(), handler]
    }));
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let (methods, paths) = (width(0), width(1));
    rows.iter().map(|[method, path, handler]| format!("{method:<methods$}  {path:<paths$}  {handler}\n")).collect()
}

/// A JSON array with one object for each route.
pub(crate) fn json(routes: &[RouteInfo]) -> String {
    let routes: Vec<_> = routes
        .iter()
        .map(|route| {
            json!({
                "method": route.method,
                "path": route.path,
                "file": route.file,
                "line": route.line,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(routes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str, line: u32) -> RouteInfo {
        RouteInfo { method: method.into(), path: path.into(), file: "app.lua".into(), line }
    }

    #[test]
    fn columns_are_aligned() {
        let routes = [route("GET", "/", 3), route("DELETE", "/users/{id}", 12)];
        let expected = "\
METHOD  PATH         HANDLER
GET     /            app.lua:3
DELETE  /users/{id}  app.lua:12
";
        assert_eq!(table(&routes), expected);
        assert_eq!(table(&[]), "METHOD  PATH  HANDLER\n");
    }

    #[test]
    fn json_reads_back() {
        let value: serde_json::Value = serde_json::from_str(&json(&[route("GET", "/\"", 3)])).unwrap();
        let expected = json!([{"method": "GET", "path": "/\"", "file": "app.lua", "line": 3}]);
        assert_eq!(value, expected);
        assert_eq!(json(&[]), "[]\n");
    }
}
