//! `rover db …`. Comes in: what to do with a database of an app. Goes out: what has been done, as text.

use std::path::PathBuf;

use anyhow::{Context, bail};
use rover_server::{AppDatabase, Server};

use crate::args::DatabaseTask;

/// Does it.
pub(crate) fn look_after(server: &Server, name: &str, task: &DatabaseTask) -> anyhow::Result<String> {
    let database = find(server, name)?;
    match task {
        DatabaseTask::New { name } => Ok(format!("{}\n", database.create(name)?.display())),
        DatabaseTask::Migrate => {
            let mut text = String::new();
            let done = database.migrate(|name| text.push_str(&format!("{name}: applied\n")));
            told(text, done, "nothing is pending\n")
        }
        DatabaseTask::Status => {
            let mut text = String::new();
            for status in database.status()? {
                let at = status.applied_at.map(|at| format!("  {at}")).unwrap_or_default();
                text.push_str(&format!("{:<8} {}{at}\n", status.state.as_str(), status.name));
            }
            Ok(if text.is_empty() { format!("no migrations in {}\n", database.folder().display()) } else { text })
        }
        DatabaseTask::RollBack { steps } => {
            let mut text = String::new();
            let done = database.roll_back((*steps).into(), |name| text.push_str(&format!("{name}: undone\n")));
            told(text, done, "nothing has been run\n")
        }
        DatabaseTask::Dump { output } => {
            let file = output.clone().unwrap_or_else(|| beside(&database, "schema.sql"));
            std::fs::write(&file, database.dump()?).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(format!("{}\n", file.display()))
        }
        DatabaseTask::Seed { file } => {
            let file = file.clone().unwrap_or_else(|| beside(&database, "seed.sql"));
            database.seed(&file)?;
            Ok(format!("{}: done\n", file.display()))
        }
        DatabaseTask::Backup { file } => {
            database.backup(file)?;
            let size = std::fs::metadata(file).map(|metadata| metadata.len()).unwrap_or_default();
            Ok(format!("{}: {size} bytes\n", file.display()))
        }
    }
}

fn find(server: &Server, name: &str) -> anyhow::Result<AppDatabase> {
    let all = server.databases()?;
    let known: Vec<String> = all.iter().map(|database| database.name().to_owned()).collect();
    match all.into_iter().find(|database| database.name() == name) {
        Some(database) => Ok(database),
        None if known.is_empty() => {
            bail!("the app names no database: write rover.server {{ db = \"sqlite:app.db\" }}, or set DATABASE_URL")
        }
        None => bail!("the app has no database {name:?}: there are {}", known.join(", ")),
    }
}

fn beside(database: &AppDatabase, name: &str) -> PathBuf {
    match database.beside() {
        here if here.as_os_str() == "." => PathBuf::from(name),
        folder => folder.join(name),
    }
}

/// What has been done before a failure is told with it.
fn told(text: String, done: Result<(), rover_server::Error>, nothing: &str) -> anyhow::Result<String> {
    match done {
        Ok(()) if text.is_empty() => Ok(nothing.to_owned()),
        Ok(()) => Ok(text),
        Err(error) => {
            crate::print(&text)?;
            Err(error.into())
        }
    }
}
