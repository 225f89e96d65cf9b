//! How connections reach the workers of a baseline server: one worker accepts for itself; several are served
//! round-robin by an accepting thread, so that few connections spread evenly.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use clap::Parser;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Command line of a baseline server.
#[derive(Parser)]
pub struct Args {
    /// TCP port on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Worker threads, each with a current-thread runtime.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    workers: u8,
}

/// Where a worker takes its connections from.
pub struct Connections {
    source: Source,
    address: SocketAddr,
}

enum Source {
    Listener(TcpListener),
    Handed(UnboundedReceiver<std::net::TcpStream>),
}

impl Connections {
    /// Waits for the next connection, with TCP_NODELAY set.
    ///
    /// # Errors
    /// An error of the socket; or the accepting thread ended.
    pub async fn next(&mut self) -> io::Result<TcpStream> {
        let stream = match &mut self.source {
            Source::Listener(listener) => listener.accept().await?.0,
            Source::Handed(queue) => TcpStream::from_std(queue.recv().await.ok_or(io::ErrorKind::BrokenPipe)?)?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens, prints the port, and runs `serve` on every worker; returns when the first worker ends.
///
/// # Errors
/// The port cannot be bound, or a worker cannot start or ended with an error.
pub fn run<F>(args: &Args, serve: fn(Connections) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let first = runtime()?;
    let listener = first.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)))?;
    let address = listener.local_addr()?;
    println!("{}", address.port());
    io::stdout().flush()?;

    if args.workers == 1 {
        return first.block_on(serve(Connections { source: Source::Listener(listener), address }));
    }
    let mut queues = Vec::new();
    for _ in 0..args.workers {
        let (sender, receiver) = unbounded_channel();
        let runtime = runtime()?;
        queues.push(sender);
        thread::spawn(move || runtime.block_on(serve(Connections { source: Source::Handed(receiver), address })));
    }
    first.block_on(async {
        for queue in queues.iter().cycle() {
            queue.send(listener.accept().await?.0.into_std()?)?;
        }
        Ok(())
    })
}
