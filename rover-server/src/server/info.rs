//! What an app declares, for whoever asks from outside.

use crate::route::FastRouter;

/// What an app declares.
#[derive(Debug, Clone)]
pub struct AppInfo {
    routes: Vec<RouteInfo>,
}

/// One route of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method, such as `GET`; `any` for a handler of every method that the path does not declare.
    pub method: String,
    /// The pattern, such as `/users/{id}`.
    pub path: String,
    /// The file that declares it, as it was named to Rover.
    pub file: String,
    /// The line of the declaration.
    pub line: u32,
}

impl AppInfo {
    pub(super) fn new(router: &FastRouter) -> AppInfo {
        let routes = router.routes().iter().map(|route| RouteInfo {
            method: route.verb.to_string(),
            path: route.pattern.to_string(),
            file: route.origin.file.to_string(),
            line: route.origin.line,
        });
        AppInfo { routes: routes.collect() }
    }

    /// The routes in the order declared.
    pub fn routes(&self) -> &[RouteInfo] {
        &self.routes
    }
}
