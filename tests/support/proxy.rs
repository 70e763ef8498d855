//! Puts a wire between a client and a broker that can be cut, throttled, and disturbed at requests of one kind.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::disturbance::{Disturbance, Disturbances, Fate, Matching};
use super::free_port;

const LOOK: Duration = Duration::from_millis(10);
/// Bytes forwarded at once, so that a throttled wire flows evenly.
const PIECE: usize = 16 * 1024;

/// Names the direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Requests,
    Responses,
}

/// Forwards TCP on loopback, for clients that speak Kafka's protocol in the clear.
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
    /// The two ends of each connection, which are shut when the connection is severed.
    connections: Vec<[TcpStream; 2]>,
    /// The number of times that connections have been severed: a pump that began before has nothing more to forward.
    severed: u64,
    /// Bytes a second each way, over all connections; no limit while it is `None`.
    bandwidth: Option<f64>,
    /// The time until which the wire is taken by bytes that have been forwarded, in each direction.
    taken: [Option<Instant>; 2],
    disturbances: Disturbances,
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

    /// Returns the port that the proxy listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port that the proxy forwards to.
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

    /// Forwards no more than so many bytes a second each way, all connections together; `None` is no limit.
    pub(crate) fn throttle(&self, bytes_per_second: Option<u32>) {
        self.wire.change(|state| {
            state.bandwidth = bytes_per_second.map(f64::from);
            state.taken = [None; 2];
        });
    }

    /// Disturbs requests that match from now on, beside what was asked for before.
    pub(crate) fn disturb(&self, matching: Matching, disturbance: Disturbance) {
        self.wire.change(|state| state.disturbances.add(matching, disturbance));
    }

    /// Forwards again: what was held up arrives late, unless its connection has been severed. Limits and disturbances
    /// are over.
    pub(crate) fn heal(&self) {
        self.wire.change(|state| {
            state.refusing = false;
            state.stalled.clear();
            state.bandwidth = None;
            state.disturbances.clear();
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

    /// Waits until this way is open and has room for so many bytes, and returns false when the held bytes must not
    /// arrive any more.
    fn passes(&self, way: Way, severed: u64, bytes: usize) -> bool {
        let mut state = self.state();
        loop {
            if state.severed != severed {
                return false;
            }
            if state.stalled.contains(&way) {
                state = self.changed.wait(state).unwrap();
                continue;
            }
            let Some(bandwidth) = state.bandwidth else { return true };
            let now = Instant::now();
            let free = state.taken[way as usize].unwrap_or(now);
            if free <= now {
                state.taken[way as usize] = Some(free.max(now) + Duration::from_secs_f64(bytes as f64 / bandwidth));
                return true;
            }
            state = self.changed.wait_timeout(state, free - now).unwrap().0;
        }
    }

    fn fate(&self, frame: &[u8]) -> Fate {
        self.state().disturbances.fate(frame)
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
    thread::spawn(move || {
        let _ = pump_requests(&there, severed, &client, &broker);
        hang_up(&there, &client, &broker);
    });
    thread::spawn(move || {
        let _ = pump_responses(&back, severed, &broker_back, &client_back);
        hang_up(&back, &broker_back, &client_back);
    });
}

/// Forwards request by request, so that each can be disturbed, until there are no more.
fn pump_requests(wire: &Wire, severed: u64, mut from: &TcpStream, to: &TcpStream) -> std::io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        frame.clear();
        frame.extend(length);
        from.take(u64::from(u32::from_be_bytes(length))).read_to_end(&mut frame)?;
        let fate = wire.fate(&frame);
        thread::sleep(fate.delay);
        if fate.cut {
            return Ok(());
        }
        forward(wire, Way::Requests, severed, &frame, to)?;
    }
}

fn pump_responses(wire: &Wire, severed: u64, mut from: &TcpStream, to: &TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => forward(wire, Way::Responses, severed, &buffer[..read], to)?,
        }
    }
}

fn forward(wire: &Wire, way: Way, severed: u64, bytes: &[u8], mut to: &TcpStream) -> std::io::Result<()> {
    bytes.chunks(PIECE).try_for_each(|piece| match wire.passes(way, severed, piece.len()) {
        true => to.write_all(piece),
        false => Err(ErrorKind::ConnectionAborted.into()),
    })
}

fn hang_up(wire: &Wire, from: &TcpStream, to: &TcpStream) {
    let ended = from.peer_addr().ok();
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    let is_ended = |ends: &[TcpStream; 2]| ends.iter().any(|end| end.peer_addr().ok() == ended);
    wire.change(|state| state.connections.retain(|ends| !is_ended(ends)));
}

#[cfg(test)]
mod tests {
    use super::super::disturbance::OFFSET_COMMIT;
    use super::*;

    /// Answers each byte with the same byte.
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

    /// Builds a request without a body.
    fn frame(api: i16, client: &str) -> Vec<u8> {
        let mut frame = Vec::from(u32::try_from(10 + client.len()).unwrap().to_be_bytes());
        frame.extend(api.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(u16::try_from(client.len()).unwrap().to_be_bytes());
        frame.extend(client.as_bytes());
        frame
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        ask_for(stream, OFFSET_COMMIT, "any")
    }

    fn ask_for(stream: &mut TcpStream, api: i16, client: &str) -> std::io::Result<()> {
        stream.write_all(&frame(api, client))?;
        answer(stream, api, client)
    }

    fn answer(stream: &mut TcpStream, api: i16, client: &str) -> std::io::Result<()> {
        let mut answer = frame(api, client);
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, frame(api, client));
        Ok(())
    }

    #[test]
    fn it_forwards_until_it_is_cut_and_again_when_it_is_healed() {
        let proxy = Proxy::start();
        echo(proxy.target());
        let mut stream = dial(&proxy);
        ask(&mut stream).unwrap();
        proxy.cut();
        assert!(ask(&mut stream).is_err());
        super::super::wait_until("a refusal", Duration::from_secs(10), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).err()
        });
        proxy.heal();
        ask(&mut dial(&proxy)).unwrap();
    }

    #[test]
    fn what_is_stalled_arrives_late_or_never() {
        for way in [Way::Requests, Way::Responses] {
            let proxy = Proxy::start();
            echo(proxy.target());
            let (mut patient, mut unlucky) = (dial(&proxy), dial(&proxy));
            ask(&mut patient).unwrap();
            ask(&mut unlucky).unwrap();
            proxy.stall(&[way]);
            patient.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(ask(&mut patient).is_err(), "{way:?}");
            patient.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            proxy.heal();
            answer(&mut patient, OFFSET_COMMIT, "any").unwrap();

            proxy.stall(&[way]);
            unlucky.write_all(&frame(OFFSET_COMMIT, "any")).unwrap();
            proxy.sever();
            proxy.heal();
            assert!(answer(&mut unlucky, OFFSET_COMMIT, "any").is_err(), "{way:?}");
        }
    }
    #[test]
    fn a_throttled_wire_takes_its_time_whichever_way_and_connection() {
        let proxy = Proxy::start();
        echo(proxy.target());
        let mut streams = [dial(&proxy), dial(&proxy)];
        let client = "c".repeat(50_000);
        let took = |streams: &mut [TcpStream; 2]| {
            let begun = Instant::now();
            streams.iter_mut().for_each(|stream| stream.write_all(&frame(0, &client)).unwrap());
            streams.iter_mut().for_each(|stream| answer(stream, 0, &client).unwrap());
            begun.elapsed()
        };
        took(&mut streams);
        // The two requests have 100 kB, of which the last pieces need not wait for themselves.
        proxy.throttle(Some(100_000));
        let throttled = took(&mut streams);
        assert!(throttled > Duration::from_millis(600) && throttled < Duration::from_secs(8), "{throttled:?}");
        proxy.heal();
        let healed = took(&mut streams);
        assert!(healed < throttled / 2, "{healed:?} after {throttled:?}");
    }

    #[test]
    fn only_requests_that_match_are_disturbed() {
        let proxy = Proxy::start();
        echo(proxy.target());
        let late = Duration::from_millis(300);
        proxy.disturb(Matching { api: 1, client: "slow" }, Disturbance::Delay(late..late));
        proxy.disturb(Matching { api: 2, client: "" }, Disturbance::Cut(1.0));
        let mut stream = dial(&proxy);
        let mut took = |api, client| {
            let begun = Instant::now();
            ask_for(&mut stream, api, client).map(|()| begun.elapsed())
        };
        assert!(took(1, "slow-1").unwrap() >= late);
        let undisturbed = [took(1, "quick").unwrap(), took(4, "slow-1").unwrap()];
        assert!(undisturbed.iter().min().unwrap() < &late, "{undisturbed:?}");
        assert!(took(2, "any").is_err());
        proxy.heal();
        let mut healed = dial(&proxy);
        (1..3).for_each(|api| ask_for(&mut healed, api, "slow-1").unwrap());
    }
}
