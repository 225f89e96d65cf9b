//! Reads the command line. Comes in: its words. Goes out: what to do, as data. Must not know: how it is done.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rover_server::{Level, Server, config_keys};

const EXAMPLES: &str = "\
Examples:
  rover app.lua                        serve app.lua on http://127.0.0.1:4242
  rover app.lua --port 3000 --debug    show errors in answers while developing
  rover app.lua --watch                load the app anew when its files change
  rover app.lua --host 0.0.0.0         listen on every IPv4 address
  rover app.lua --host /run/app.sock   listen on a Unix socket
  rover app.lua --tls-self-signed      serve https while developing
  rover check app.lua                  report every mistake without serving
  rover routes app.lua --json          list the routes for another program
  rover db migrate                     run the migrations of app.lua that are pending
  rover db backup copy.db              copy its database while it is in use
  rover profile app.lua                serve until Ctrl+C, then draw where the time went
  rover ./run                          serve a file that is called like a command";

/// Serves HTTP services written in Lua.
#[derive(Debug, Parser)]
#[command(name = "rover", version, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, subcommand_negates_reqs = true)]
#[command(override_usage = "rover [OPTIONS] <APP>\n       rover [OPTIONS] <COMMAND> <APP>")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The app's Lua file
    #[arg(value_name = "APP", required = true)]
    app: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an app; the same as `rover app.lua`
    Run(App),
    /// Load an app and report every mistake; exits with 1 when there is one
    Check(App),
    /// List the routes of an app
    Routes {
        #[command(flatten)]
        app: App,
        /// Print a JSON array of {method, path, file, line}
        #[arg(long)]
        json: bool,
    },
    /// Look after an app's databases: migrations, backups
    Db {
        #[command(subcommand)]
        action: DbAction,
    },
    /// Serve an app and draw where its Lua code spends its time, as a flame graph
    Profile {
        #[command(flatten)]
        app: App,
        /// Stop after so many seconds instead of at Ctrl+C, or after an hour
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: Option<u32>,
        /// The SVG file to write
        #[arg(long, value_name = "FILE", default_value = "profile.svg")]
        output: PathBuf,
    },
}

/// What to do with a database.
#[derive(Debug, Subcommand)]
enum DbAction {
    /// Make an empty migration: the next file in migrations/
    New {
        /// Such as add_users
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Run the migrations that are pending
    Migrate {
        #[command(flatten)]
        of: Of,
    },
    /// List the migrations and whether they have been run
    Status {
        #[command(flatten)]
        of: Of,
    },
    /// Undo the last migrations by their .down.sql
    Rollback {
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        steps: u16,
        #[command(flatten)]
        of: Of,
    },
    /// Write the SQL that makes the schema as it is
    Dump {
        /// The file to write [default: schema.sql beside the app]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
    /// Run a file of SQL in one transaction, such as one of rows to begin with
    Seed {
        /// The file [default: seed.sql beside the app]
        file: Option<PathBuf>,
        #[command(flatten)]
        of: Of,
    },
    /// Copy the database into a new file, also while it is in use
    Backup {
        /// The file to write
        file: PathBuf,
        #[command(flatten)]
        of: Of,
    },
}

/// Which database.
#[derive(Args, Debug)]
struct Of {
    /// The app's Lua file
    #[arg(long, value_name = "APP", default_value = "app.lua")]
    app: PathBuf,
    /// A further database of the app
    #[arg(long, value_name = "NAME", default_value = "default")]
    database: String,
}

#[derive(Args, Debug)]
struct App {
    /// The app's Lua file
    #[arg(value_name = "APP")]
    file: PathBuf,
}

/// What wins over ROVER_* variables, the app itself and the defaults. Every command takes them, so that `check` sees
/// what `run` will.
#[derive(Args, Debug)]
struct Flags {
    /// Address, host name or Unix socket to listen on [default: 127.0.0.1]
    #[arg(long, global = true)]
    host: Option<String>,
    /// TCP port; 0 picks a free one [default: 4242]
    #[arg(long, global = true)]
    port: Option<u16>,
    /// Threads, each with a Lua VM of its own [default: one for each core]
    #[arg(long, global = true, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Least level that is logged [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level())]
    log_level: Option<Level>,
    /// Show error messages and tracebacks in answers
    #[arg(long, global = true)]
    debug: bool,
    /// Serve https with a certificate made at the start; for development
    #[arg(long, global = true)]
    tls_self_signed: bool,
    /// Load the app anew when one of its Lua files changes
    #[arg(long, global = true)]
    watch: bool,
    /// Run pending migrations before serving, instead of refusing to
    #[arg(long, global = true)]
    migrate: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) task: Task,
    pub(crate) app: PathBuf,
    /// Whether changes of the app's files reload it.
    pub(crate) watch: bool,
    flags: Flags,
}

/// What to do with the app.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Serve,
    Check,
    Routes { json: bool },
    Profile { seconds: Option<u32>, output: PathBuf },
    Database { name: String, action: DatabaseTask },
}

/// What to do with a database of the app.
#[derive(Debug, PartialEq)]
pub(crate) enum DatabaseTask {
    New { name: String },
    Migrate,
    Status,
    RollBack { steps: u16 },
    Dump { output: Option<PathBuf> },
    Seed { file: Option<PathBuf> },
    Backup { file: PathBuf },
}

impl DbAction {
    fn task(self) -> (Task, PathBuf) {
        let (of, action) = match self {
            DbAction::New { name, of } => (of, DatabaseTask::New { name }),
            DbAction::Migrate { of } => (of, DatabaseTask::Migrate),
            DbAction::Status { of } => (of, DatabaseTask::Status),
            DbAction::Rollback { steps, of } => (of, DatabaseTask::RollBack { steps }),
            DbAction::Dump { output, of } => (of, DatabaseTask::Dump { output }),
            DbAction::Seed { file, of } => (of, DatabaseTask::Seed { file }),
            DbAction::Backup { file, of } => (of, DatabaseTask::Backup { file }),
        };
        (Task::Database { name: of.database, action }, of.app)
    }
}

impl Request {
    /// Reads the process's arguments. Help, the version and mistakes of usage end the process here, mistakes with 2.
    pub(crate) fn read() -> Request {
        let command = Cli::command().after_long_help(format!("{EXAMPLES}\n\n{}", keys_help()));
        let request = Request::from(command, std::env::args_os());
        request.unwrap_or_else(|error| error.exit())
    }

    fn from<T: Into<OsString> + Clone>(
        mut command: clap::Command,
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Request, clap::Error> {
        let cli = Cli::from_arg_matches(&command.try_get_matches_from_mut(arguments)?)?;
        let (task, app) = match (cli.command, cli.app) {
            (None, Some(app)) => (Task::Serve, app),
            (Some(Command::Run(app)), None) => (Task::Serve, app.file),
            (Some(Command::Check(app)), None) => (Task::Check, app.file),
            (Some(Command::Routes { app, json }), None) => (Task::Routes { json }, app.file),
            (Some(Command::Db { action }), None) => action.task(),
            (Some(Command::Profile { .. }), None) if cli.flags.watch => {
                let text = "a profile is of one version of the app: leave out --watch";
                return Err(command.error(ErrorKind::ArgumentConflict, text));
            }
            (Some(Command::Profile { app, seconds, output }), None) => (Task::Profile { seconds, output }, app.file),
            (_, Some(app)) => {
                let text = format!("a command stands before the app: move '{}'", app.display());
                return Err(command.error(ErrorKind::ArgumentConflict, text));
            }
            (None, None) => {
                let text = "name the app's Lua file, as in: rover app.lua";
                return Err(command.error(ErrorKind::MissingRequiredArgument, text));
            }
        };
        let flags = cli.flags;
        let watch = flags.watch;
        Ok(Request { task, app, watch, flags })
    }

    /// The server that the arguments describe.
    pub(crate) fn server(&self) -> Server {
        let mut server = Server::from_file(&self.app);
        if let Some(host) = &self.flags.host {
            server = server.host(host);
        }
        if let Some(port) = self.flags.port {
            server = server.port(port);
        }
        if let Some(workers) = self.flags.workers {
            server = server.workers(workers.into());
        }
        if let Some(level) = self.flags.log_level {
            server = server.log_level(level);
        }
        if self.flags.migrate {
            server = server.migrate(true);
        }
        if self.flags.debug {
            server = server.debug(true);
        }
        if self.flags.tls_self_signed {
            server = server.set("tls.self_signed", "true");
        }
        server
    }
}

fn level() -> impl TypedValueParser<Value = Level> {
    let value = |level: Level| match level {
        // Its former name.
        Level::Off => PossibleValue::new(level.name()).alias("nope"),
        level => PossibleValue::new(level.name()),
    };
    PossibleValuesParser::new(Level::ALL.map(value)).try_map(|name| Level::from_name(&name).ok_or("no such level"))
}

/// Every config key and its variable, for `--help`.
fn keys_help() -> String {
    let mut help = String::from(
        "Config: each key of rover.server { ... } is also an environment variable. Flags win over variables,\n\
         variables over the app.\n",
    );
    for key in config_keys() {
        let variable = key.variable();
        let (name, what, default) = (&key.name, key.what, &key.default);
        help.push_str(&format!("\n  {name:<24} {variable:<30} {what} [default: {default}]"));
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, clap::Error> {
        Request::from(Cli::command(), line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_app_with_and_without_run() {
        for line in [
            "rover app.lua --port 1 --debug --workers 2 --log-level off",
            "rover --port 1 --debug --workers 2 --log-level nope app.lua",
            "rover --port 1 app.lua --debug --workers 2 --log-level nope",
            "rover run app.lua --port 1 --debug --workers 2 --log-level off",
            "rover run --port=1 --debug --workers=2 --log-level=off app.lua",
            "rover --port=1 --debug run --workers=2 --log-level=nope app.lua",
        ] {
            let Request { task, app, flags, .. } = read(line).unwrap();
            assert_eq!((task, app), (Task::Serve, "app.lua".into()), "{line}");
            assert_eq!((flags.port, flags.workers), (Some(1), Some(2)), "{line}");
            assert_eq!(flags.log_level, Some(Level::Off), "{line}");
            assert!(flags.debug && !flags.tls_self_signed, "{line}");
        }
    }

    #[test]
    fn the_other_commands() {
        let check = read("rover check app.lua --port 1").unwrap();
        assert_eq!((check.task, check.flags.port), (Task::Check, Some(1)));
        let routes = read("rover routes --json app.lua").unwrap();
        assert_eq!(routes.task, Task::Routes { json: true });
        let migrate = read("rover db migrate").unwrap();
        let task = Task::Database { name: "default".into(), action: DatabaseTask::Migrate };
        assert_eq!((migrate.task, migrate.app), (task, "app.lua".into()));
        let backup = read("rover db backup copy.db --app shop.lua --database reports").unwrap();
        let action = DatabaseTask::Backup { file: "copy.db".into() };
        let task = Task::Database { name: "reports".into(), action };
        assert_eq!((backup.task, backup.app), (task, "shop.lua".into()));
        assert!(read("rover app.lua --migrate").unwrap().flags.migrate);
        let profile = read("rover profile app.lua --seconds 5").unwrap();
        assert_eq!(profile.task, Task::Profile { seconds: Some(5), output: "profile.svg".into() });
    }

    #[test]
    fn files_called_like_commands() {
        for (line, app) in [("rover ./run", "./run"), ("rover run run", "run"), ("rover -- run", "run")] {
            let request = read(line).unwrap();
            assert_eq!((request.task, request.app), (Task::Serve, app.into()));
        }
    }

    #[test]
    fn mistakes_of_usage() {
        for line in [
            "rover app.lua --prot 1",
            "rover app.lua --port 70000",
            "rover app.lua --workers 0",
            "rover app.lua --log-level loud",
            "rover app.lua other.lua",
            "rover chekc app.lua",
            "rover app.lua check other.lua",
            "rover --port 1",
            "rover check",
            "rover routes --yaml app.lua",
            "rover profile app.lua --seconds 0",
            "rover profile app.lua --watch",
            "rover db",
            "rover db rollback --steps 0",
            "rover db backup",
        ] {
            let error = read(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn help_lists_every_key() {
        let help = keys_help();
        for key in config_keys() {
            assert!(help.contains(&key.variable()), "{}", key.name);
        }
    }
}
