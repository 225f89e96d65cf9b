//! What an app declares, for embedding programs and the command.

use crate::policy::assets::Mounts;
use crate::route::FastRouter;

/// What an app declares.
#[derive(Debug, Clone)]
pub struct AppInfo {
    routes: Vec<RouteInfo>,
    warnings: Vec<String>,
}

/// One route of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method, such as `GET`; `any` for a handler of every method that the path does not declare, `static` for a
    /// folder of files.
    pub method: String,
    /// The pattern, such as `/users/{id}`.
    pub path: String,
    /// The file that declares it, as it was named to Rover.
    pub file: String,
    /// The line of the declaration.
    pub line: u32,
}

impl AppInfo {
    pub(super) fn new(router: &FastRouter, mounts: &Mounts) -> AppInfo {
        let routes = router.routes().iter().map(|route| RouteInfo {
            method: route.verb.to_string(),
            path: route.pattern.to_string(),
            file: route.origin.file.to_string(),
            line: route.origin.line,
        });
        let mounts = mounts.places().map(|(path, origin)| RouteInfo {
            method: "static".to_owned(),
            path,
            file: origin.file.to_string(),
            line: origin.line,
        });
        AppInfo { routes: routes.chain(mounts).collect(), warnings: Vec::new() }
    }

    /// Adds the warnings about an unsafe config.
    pub(super) fn warned(self, warnings: Vec<String>) -> AppInfo {
        AppInfo { warnings, ..self }
    }

    /// Returns the routes in the order of their files and lines, then the folders of static files.
    pub fn routes(&self) -> &[RouteInfo] {
        &self.routes
    }

    /// Returns warnings about a config that is unsafe on a public address, each with its cure. Only [`Server::check`]
    /// fills it.
    ///
    /// [`Server::check`]: crate::Server::check
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
