//! `rover.db`: databases through the socket.

mod migrations;
mod outages;
mod rows;
mod transactions;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::App;

/// A folder that goes when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("rover-db-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const USERS: &str = "create table if not exists users (
  id integer primary key, name text not null unique, age integer check (age >= 0), ok boolean, extra json
)";

/// Serves `code` with a table of users; `options` stand in the table `db`.
pub fn serve(code: &str, options: &str, workers: usize) -> (Folder, App) {
    let folder = Folder::new();
    let url = folder.path().join("app.db");
    let app = format!(
        "local api = rover.server {{ db = {{ url = \"sqlite:{}\", {options} }} }}
        local db = rover.db
        function api.on_start()
          db:exec [[{USERS}]]
          db:exec 'create table if not exists halves (n, half)'
        end
        {code}
        return api",
        url.display()
    );
    let app = App::start(&app, workers);
    (folder, app)
}
