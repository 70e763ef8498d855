//! Places at which hosts are called, and the queue of the calls that wait for one, first come first served.

use std::collections::VecDeque;

/// Host, as far as it matters to the places.
pub(super) trait PoolHost: Clone {
    /// Tells whether both are the same host.
    fn is(&self, other: &Self) -> bool;

    /// Tells whether its process has ended, or is being killed.
    fn is_gone(&self) -> bool;

    /// Tells whether it is not to be called again, though it still runs.
    fn is_spent(&self) -> bool;
}

/// Places of some hosts, as many at each as it has threads, and the calls that wait for one, each represented by a `W`.
#[derive(Debug)]
pub(super) struct Places<H, W> {
    hosts: Vec<HostEntry<H>>,
    /// The number of places at each host.
    threads: usize,
    /// The number of places that may be taken at the same time.
    at_once: usize,
    taken: usize,
    waiting: VecDeque<PlaceWaiter<W>>,
    /// Hosts that were found gone, and that the pool has not replaced yet.
    lost: Vec<H>,
    closed: bool,
}

#[derive(Debug)]
struct HostEntry<H> {
    host: H,
    taken: usize,
    /// The number of its calls that have run out of time and go on.
    late: usize,
    /// True if its one call is to be the only one in its process.
    alone: bool,
}

#[derive(Debug)]
struct PlaceWaiter<W> {
    alone: bool,
    waiter: W,
}

impl<H: PoolHost, W> Places<H, W> {
    /// Builds the places of hosts that have no calls yet.
    pub(super) fn new(hosts: impl IntoIterator<Item = H>, threads: usize, at_once: usize) -> Self {
        let hosts = hosts.into_iter().map(HostEntry::new).collect();
        Self { hosts, threads, at_once, taken: 0, waiting: VecDeque::new(), lost: Vec::new(), closed: false }
    }

    /// Returns the number of places that may be taken at the same time, when all hosts are there.
    pub(super) fn at_once(&self) -> usize {
        self.at_once
    }

    /// Returns the number of places that may be taken now.
    pub(super) fn free(&self) -> usize {
        let in_hosts: usize = self.hosts.iter().map(|entry| entry.free(self.threads)).sum();
        in_hosts.min(self.at_once.saturating_sub(self.taken))
    }

    /// Takes a place, unless calls wait for one; at a host that has no other call if the call is to be `alone`.
    pub(super) fn take(&mut self, alone: bool) -> Option<H> {
        if self.waiting.is_empty() { self.pick(alone) } else { None }
    }

    /// Queues a call that waits for a place.
    pub(super) fn wait(&mut self, alone: bool, waiter: W) {
        self.waiting.push_back(PlaceWaiter { alone, waiter });
    }

    /// Takes a place for the call that has waited longest, if there is one for it. Calls that are no longer there are
    /// forgotten. A call that is to be alone lets no other past, or it would wait for ever.
    pub(super) fn next(&mut self, is_there: impl Fn(&W) -> bool) -> Option<(H, W)> {
        loop {
            let first = self.waiting.front()?;
            let host = if is_there(&first.waiter) { Some(self.pick(first.alone)?) } else { None };
            let first = self.waiting.pop_front()?;
            if let Some(host) = host {
                return Some((host, first.waiter));
            }
        }
    }

    /// Notes that a call has run out of time, and goes on. False when no other call is in its host: then the caller is
    /// to kill the host.
    pub(super) fn runs_late(&mut self, host: &H) -> bool {
        match self.entry(host) {
            Some(entry) if entry.taken > entry.late + 1 => {
                entry.late += 1;
                true
            }
            _ => false,
        }
    }

    /// Tells whether other calls were in this host beside this call, which it has not survived.
    pub(super) fn had_company(&mut self, host: &H) -> bool {
        // A host that is not there any more was missed by another of its calls before.
        self.entry(host).is_none_or(|entry| entry.taken > 1)
    }

    /// Gives a place back. A host that is gone has no places any longer, and is lost; so is a host in which no calls
    /// are left but late ones, or that is spent.
    pub(super) fn give_back(&mut self, host: &H, was_late: bool) {
        self.taken = self.taken.saturating_sub(1);
        let Some(index) = self.hosts.iter().position(|entry| entry.host.is(host)) else { return };
        let Some(entry) = self.hosts.get_mut(index) else { return };
        entry.taken = entry.taken.saturating_sub(1);
        entry.late = entry.late.saturating_sub(usize::from(was_late));
        entry.alone = false;
        let is_left = entry.taken == entry.late && (entry.late > 0 || host.is_spent());
        if host.is_gone() || is_left {
            self.lost.push(self.hosts.swap_remove(index).host);
        }
    }

    /// Takes the hosts that were found gone since the last time, or that are to be killed.
    pub(super) fn lost(&mut self) -> Vec<H> {
        std::mem::take(&mut self.lost)
    }

    /// Adds a host.
    pub(super) fn add(&mut self, host: H) {
        self.hosts.push(HostEntry::new(host));
    }

    /// Closes the places: from now on there are none.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }

    /// Tells whether the places are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes out all hosts, which are called from here no longer.
    pub(super) fn clear(&mut self) -> Vec<H> {
        self.hosts.drain(..).map(|entry| entry.host).collect()
    }

    /// Takes a place at the host with the fewest calls.
    fn pick(&mut self, alone: bool) -> Option<H> {
        if self.closed || self.taken >= self.at_once {
            return None;
        }
        // A host that has ended while it was idle is noticed only now.
        while let Some(index) = self.hosts.iter().position(|entry| entry.taken == 0 && entry.host.is_gone()) {
            self.lost.push(self.hosts.swap_remove(index).host);
        }
        let threads = self.threads;
        let fits = |entry: &&mut HostEntry<H>| entry.free(threads) > 0 && (!alone || entry.taken == 0);
        let entry = self.hosts.iter_mut().filter(fits).min_by_key(|entry| entry.taken)?;
        entry.taken += 1;
        entry.alone = alone;
        self.taken += 1;
        Some(entry.host.clone())
    }

    fn entry(&mut self, host: &H) -> Option<&mut HostEntry<H>> {
        self.hosts.iter_mut().find(|entry| entry.host.is(host))
    }
}

impl<H: PoolHost> HostEntry<H> {
    fn new(host: H) -> Self {
        Self { host, taken: 0, late: 0, alone: false }
    }

    fn free(&self, threads: usize) -> usize {
        let is_open = !self.alone && !self.host.is_gone() && !self.host.is_spent();
        if is_open { threads.saturating_sub(self.taken) } else { 0 }
    }
}

#[cfg(test)]
mod tests;
