//! A wire between a client and a broker that can be cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::free_port;

const LOOK: Duration = Duration::from_millis(10);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Requests,
    Responses,
}

/// A TCP proxy on loopback.
pub(crate) struct Proxy {
    wire: Arc<Wire>,
    port: u16,
    target: u16,
}

#[derive(Default)]
struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    refusing: bool,
    stalled: Vec<Way>,
    /// Both ends of each connection, and when it is severed they are shut.
    connections: Vec<[TcpStream; 2]>,
    /// How often connections have been severed: a pump that began before has nothing more to forward.
    severed: u64,
    over: bool,
}

impl Proxy {
    /// Listens on a free port, and forwards to another that is free still.
    pub(crate) fn start() -> Self {
        let (port, target) = (free_port(), free_port());
        let wire = Arc::new(Wire::default());
        let accepting = Arc::clone(&wire);
        thread::spawn(move || accept(&accepting, port, target));
        Self { wire, port, target }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it forwards to.
    pub(crate) fn target(&self) -> u16 {
        self.target
    }

    /// Ends all connections, with what is on its way in them, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.wire.change(|state| {
            state.refusing = true;
            state.sever();
        });
    }

    /// Forwards nothing more in these directions; connections stay, and new ones are taken.
    pub(crate) fn stall(&self, ways: &[Way]) {
        self.wire.change(|state| state.stalled = ways.to_vec());
    }

    /// Ends all connections, with what is on its way in them; new ones are taken.
    pub(crate) fn sever(&self) {
        self.wire.change(State::sever);
    }

    /// Forwards again: what was held up arrives late, unless its connection has been severed.
    pub(crate) fn heal(&self) {
        self.wire.change(|state| {
            state.refusing = false;
            state.stalled.clear();
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.change(|state| {
            state.over = true;
            state.sever();
        });
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until this way is open. False when what is held must not arrive any more.
    fn passes(&self, way: Way, severed: u64) -> bool {
        let held = |state: &mut State| state.severed == severed && state.stalled.contains(&way);
        self.changed.wait_while(self.state(), held).unwrap().severed == severed
    }
}

impl State {
    fn sever(&mut self) {
        self.severed += 1;
        for end in self.connections.drain(..).flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Takes connections, except while they are refused; then nobody listens.
fn accept(wire: &Arc<Wire>, port: u16, target: u16) {
    let mut listener = None;
    loop {
        let (over, refusing) = {
            let state = wire.state();
            (state.over, state.refusing)
        };
        if over {
            return;
        }
        if refusing {
            listener = None;
            thread::sleep(LOOK);
            continue;
        }
        let listening = listener.get_or_insert_with(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        match listening.accept() {
            Ok((client, _)) => connect(wire, client, target),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

fn connect(wire: &Arc<Wire>, client: TcpStream, target: u16) {
    // A broker that is not there refuses, and so do we.
    let Ok(broker) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))) else { return };
    client.set_nonblocking(false).unwrap();
    let ends = [client, broker];
    ends.iter().for_each(|end| end.set_nodelay(true).unwrap());
    let copies = || ends.each_ref().map(|end| end.try_clone().unwrap());
    let severed = {
        let mut state = wire.state();
        if state.refusing || state.over {
            return;
        }
        state.connections.push(copies());
        state.severed
    };
    let ([client, broker], [client_back, broker_back]) = (copies(), copies());
    let (there, back) = (Arc::clone(wire), Arc::clone(wire));
    thread::spawn(move || pump(&there, Way::Requests, severed, client, broker));
    thread::spawn(move || pump(&back, Way::Responses, severed, broker_back, client_back));
}

fn pump(wire: &Wire, way: Way, severed: u64, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !wire.passes(way, severed) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    let ended = from.peer_addr().ok();
    let is_ended = |ends: &[TcpStream; 2]| ends.iter().any(|end| end.peer_addr().ok() == ended);
    wire.change(|state| state.connections.retain(|ends| !is_ended(ends)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each byte with the same.
    fn echo(port: u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut from, mut to) = (connection.try_clone().unwrap(), connection);
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
    }

    fn dial(proxy: &Proxy) -> TcpStream {
        let stream = super::super::wait_until("the proxy", Duration::from_secs(10), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).ok()
        });
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x")?;
        answer(stream)
    }

    fn answer(stream: &mut TcpStream) -> std::io::Result<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    }

    #[test]
    fn it_forwards_until_it_is_cut_and_again_when_it_is_healed() {
        let proxy = Proxy::start();
        echo(proxy.target());
        let mut stream = dial(&proxy);
        assert_eq!(ask(&mut stream).unwrap(), b'x');
        proxy.cut();
        assert!(ask(&mut stream).is_err());
        super::super::wait_until("a refusal", Duration::from_secs(10), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).err()
        });
        proxy.heal();
        assert_eq!(ask(&mut dial(&proxy)).unwrap(), b'x');
    }

    #[test]
    fn what_is_stalled_arrives_late_or_never() {
        for way in [Way::Requests, Way::Responses] {
            let proxy = Proxy::start();
            echo(proxy.target());
            let (mut patient, mut unlucky) = (dial(&proxy), dial(&proxy));
            assert_eq!((ask(&mut patient).unwrap(), ask(&mut unlucky).unwrap()), (b'x', b'x'));
            proxy.stall(&[way]);
            patient.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(ask(&mut patient).is_err(), "{way:?}");
            patient.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            proxy.heal();
            assert_eq!(answer(&mut patient).unwrap(), b'x', "{way:?}");

            proxy.stall(&[way]);
            unlucky.write_all(b"x").unwrap();
            proxy.sever();
            proxy.heal();
            assert!(answer(&mut unlucky).is_err(), "{way:?}");
        }
    }
}
