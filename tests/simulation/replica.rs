//! A replica: the real hub, follower and shared reads. Made up is only its network: connections to
//! the server, and commands that take any time.

use crate::mix::Mix;
use crate::server::{Sent, Server};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidegate::broker::{Interest, Live, Subscriptions};
use tidegate::follow::ask::{Answer, Ask, ConnectionNo, Note, Report};
use tidegate::follow::core::{FollowSettings, FollowerCore};
use tidegate::follow::reads::shared::{Begun, Finished, SharedReads};
use tidegate::hub::Hub;
use tidegate::hub::feed::Feed;
use tidegate::hub::window::Windows;
use tidegate::id::Id;
use tidegate::log::{ClockName, LogRead, Reading};
use tidegate::sse::{Frame, Mark};
use tidegate::topic::{PartitionNo, Topic};
use tokio::time::Instant;

/// Names a stream: a client, and which of its streams.
pub type StreamNo = (usize, u64);

/// The stretch of the server's messages in which a connection was subscribed.
type Subscribed = BTreeMap<Topic, Vec<(usize, Option<usize>)>>;

/// A connection of the live path.
pub struct Connection {
    number: u64,
    /// The next message of the server.
    next: usize,
    subscribed: Subscribed,
    /// SUBSCRIBEs and UNSUBSCRIBEs that the server has not carried out.
    orders: VecDeque<Order>,
}

enum Order {
    Subscribe(Vec<Topic>),
    Unsubscribe(Vec<Topic>),
}

/// A command that was sent to the server; it is carried out at some moment, and answered at some
/// later one.
pub struct Operation {
    pub command: Command,
    pub state: State,
    /// Nothing happens to it before this step.
    pub not_before: usize,
}

pub enum Command {
    /// Reports and ticks that are still to be carried out.
    Settle(
        ConnectionNo,
        Vec<Report>,
        Vec<PartitionNo>,
        Vec<(PartitionNo, ClockName)>,
    ),
    Repair(ConnectionNo, Vec<Arc<Feed>>, LogRead),
    Tick(ConnectionNo, PartitionNo),
    /// A shared read of streams; asked of the log once it has a place.
    Shared(LogRead),
}

pub enum State {
    Waiting,
    Sent,
    Ticked(Id),
    Read(Reading),
    Done,
}

pub struct Replica {
    pub hub: Arc<Hub>,
    pub core: FollowerCore,
    pub reads: SharedReads<StreamNo>,
    subscriptions: Subscriptions,
    /// On its way to the live path.
    interest: VecDeque<Interest>,
    connection: Option<Connection>,
    pub operations: Vec<Operation>,
    /// The newest deletion of each topic that was heard here.
    pub deleted: BTreeMap<Topic, Id>,
}

/// What a replica did, for the trace.
pub type Trace = Vec<String>;

impl Replica {
    pub fn new(partitions: PartitionNo, windows: Windows, keep: Duration, now: Instant) -> Self {
        let hub = Hub::new(partitions, windows);
        let settings = FollowSettings {
            reads_max: 2,
            tick_after: Duration::from_millis(150),
            deaf_after: Duration::from_millis(600),
            keep,
        };
        Self {
            core: FollowerCore::new(hub.clone(), settings, now),
            hub,
            reads: SharedReads::default(),
            subscriptions: Subscriptions::default(),
            interest: VecDeque::new(),
            connection: None,
            operations: Vec::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// The last entry of each topic that stands in its place here, for a report. A deletion that waits for a
    /// repair may be heard on a connection on which the report was made already.
    pub fn known_entries(&self) -> BTreeMap<Topic, Id> {
        let partitions = 0..self.hub.partitions();
        let known = partitions.flat_map(|partition| self.hub.last_entries(partition));
        let stands = |(topic, id): &(Topic, Id)| {
            let feed = self.hub.feed(topic);
            feed.is_none_or(|feed| feed.complete() >= Some(*id))
        };
        let mut entries = BTreeMap::new();
        for (topic, id) in known.filter(stands) {
            let last: &mut Id = entries.entry(topic).or_default();
            *last = id.max(*last);
        }
        entries
    }

    /// Sends what the follower asks for on its way.
    pub fn collect_asks(&mut self, step: usize, rng: &mut StdRng) {
        while let Some(ask) = self.core.next_ask() {
            let command = match ask {
                Ask::Interest(interest) => {
                    self.interest.push_back(interest);
                    continue;
                }
                Ask::Settle {
                    connection,
                    reports,
                } => {
                    let partitions = (0..self.hub.partitions()).collect();
                    Command::Settle(connection, reports, partitions, Vec::new())
                }
                Ask::Read {
                    connection,
                    partition,
                    feeds,
                    requests,
                } => Command::Repair(connection, feeds, LogRead::Pages(partition, requests)),
                Ask::Tick(connection, partition) => Command::Tick(connection, partition),
            };
            self.send(command, step, rng);
        }
        drop(self.core.notes());
    }

    /// Sends a command. Some take very long until they are carried out.
    pub fn send(&mut self, command: Command, step: usize, rng: &mut StdRng) {
        self.operations.push(Operation {
            command,
            state: State::Waiting,
            not_before: step + lateness(rng, false),
        });
    }

    /// One step of the live path's own work: connect, pass on what is wanted, or have the server
    /// carry out an order.
    pub fn work_on_connection(&mut self, server: &mut Server, now: Instant, trace: &mut Trace) {
        self.core.hub_wants(now);
        let Some(connection) = &mut self.connection else {
            server.connections += 1;
            let number = server.connections;
            let topics = self.subscriptions.begin_connection();
            let mut connection = Connection {
                number,
                next: server.sent.len(),
                subscribed: BTreeMap::new(),
                orders: VecDeque::new(),
            };
            if !topics.is_empty() {
                topics
                    .iter()
                    .for_each(|t| self.subscriptions.subscribing(t));
                connection.orders.push_back(Order::Subscribe(topics));
            }
            self.connection = Some(connection);
            trace.push(format!("connects, to run {}", server.run()));
            let run = server.run().to_string().into();
            self.core.hear(Live::Up { run }, now);
            return;
        };
        match self.interest.pop_front() {
            Some(Interest::Add(added)) => {
                let topics: Vec<Topic> = added.iter().map(|(topic, _)| topic.clone()).collect();
                self.subscriptions.want(added);
                topics
                    .iter()
                    .for_each(|t| self.subscriptions.subscribing(t));
                connection.orders.push_back(Order::Subscribe(topics));
            }
            Some(Interest::Remove(removed)) => {
                trace.push(format!("gives up {removed:?}"));
                self.subscriptions.give_up(&removed);
                connection.orders.push_back(Order::Unsubscribe(removed));
            }
            Some(Interest::Reset) => {
                trace.push("begins its connection anew".into());
                self.cut(now);
                return;
            }
            None => {}
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        let at = server.sent.len();
        match connection.orders.pop_front() {
            Some(Order::Subscribe(topics)) => {
                trace.push(format!("is subscribed to {topics:?} at message {at}"));
                for topic in &topics {
                    let stretches = connection.subscribed.entry(topic.clone()).or_default();
                    if stretches.last().is_none_or(|(_, until)| until.is_some()) {
                        stretches.push((at, None));
                    }
                }
                let confirmed = Sent::Confirmed(connection.number, topics);
                server.sent.push(confirmed);
            }
            Some(Order::Unsubscribe(topics)) => {
                trace.push(format!("is unsubscribed from {topics:?} at message {at}"));
                for topic in &topics {
                    let stretches = connection.subscribed.get_mut(topic);
                    if let Some((_, until)) = stretches.and_then(|stretches| stretches.last_mut()) {
                        until.get_or_insert(at);
                    }
                }
            }
            None => {}
        }
    }

    /// The connection breaks. What is wanted meanwhile is kept account of.
    pub fn cut(&mut self, now: Instant) {
        if self.connection.take().is_some() {
            self.core.hear(Live::Down, now);
        }
        for interest in std::mem::take(&mut self.interest) {
            match interest {
                Interest::Add(added) => self.subscriptions.want(added),
                Interest::Remove(removed) => self.subscriptions.give_up(&removed),
                Interest::Reset => {}
            }
        }
    }

    /// The next message of the connection is heard.
    pub fn hear(&mut self, server: &Server, now: Instant, trace: &mut Trace) -> bool {
        let Some(event) = self.next_message(server) else {
            return false;
        };
        let mut deleted = None;
        if let Live::Frame(topic, frame) = &event {
            trace.push(format!("hears {topic} {}", frame.id));
            deleted = (frame.mark == Mark::Deleted).then(|| (topic.clone(), frame.id));
        }
        drop(self.core.notes());
        self.core.hear(event, now);
        // What is too far ahead to be believed counts as lost on the way: the log says what became of the topic.
        let is_doubted = |note| matches!(note, Note::Ahead(..));
        if let Some((topic, id)) = deleted.filter(|_| !self.core.notes().any(is_doubted)) {
            trace.push(format!("takes the deletion of {topic}"));
            self.deleted.insert(topic, id);
        }
        true
    }

    /// The next frame is lost on the way, or cannot be read. The frame and its topic, if it is lost.
    pub fn lose(
        &mut self,
        server: &Server,
        now: Instant,
        readable: bool,
        trace: &mut Trace,
    ) -> Option<(Topic, Frame)> {
        match self.next_message(server)? {
            Live::Frame(topic, frame) => {
                trace.push(format!("{topic} {} vanishes, {readable}", frame.id));
                if readable {
                    return Some((topic, frame));
                }
                self.core.hear(Live::Unreadable(topic), now);
            }
            other => self.core.hear(other, now),
        }
        None
    }

    fn next_message(&mut self, server: &Server) -> Option<Live> {
        let connection = self.connection.as_mut()?;
        while let Some(sent) = server.sent.get(connection.next) {
            let at = connection.next;
            connection.next += 1;
            match sent {
                Sent::Tick(partition, id) => return Some(Live::Tick(*partition, *id)),
                Sent::Confirmed(number, topics) if *number == connection.number => {
                    let topics = topics.iter().cloned();
                    let confirmed = topics.filter_map(|topic| self.subscriptions.confirm(topic));
                    return Some(Live::Confirmed(confirmed.collect()));
                }
                Sent::Frame(topic, frame) if connection.hears(topic, at) => {
                    return Some(Live::Frame(topic.clone(), frame.clone()));
                }
                Sent::Frame(..) | Sent::Confirmed(..) => {}
            }
        }
        None
    }

    /// The answer of a repair that has been read comes now, if there is one: another thread takes it.
    pub fn repair(&mut self, now: Instant, rng: &mut StdRng, trace: &mut Trace) {
        let is_read = |operation: &Operation| {
            matches!(operation.state, State::Read(_))
                && matches!(operation.command, Command::Repair(..))
        };
        let read = (0..self.operations.len()).filter(|index| is_read(&self.operations[*index]));
        let Some(index) = read.choose(rng) else {
            return;
        };
        let operation = self.operations.swap_remove(index);
        if let (Command::Repair(connection, feeds, _), State::Read(reading)) =
            (operation.command, operation.state)
        {
            self.take_repair(connection, feeds, reading, now, trace);
        }
    }

    fn take_repair(
        &mut self,
        connection: ConnectionNo,
        feeds: Vec<Arc<Feed>>,
        reading: Reading,
        now: Instant,
        trace: &mut Trace,
    ) {
        let topics: Vec<_> = feeds.iter().map(|feed| feed.topic().as_str()).collect();
        let last = reading.horizon.last;
        trace.push(format!("repairs {topics:?} up to {last}"));
        let reading = Ok(reading);
        let answer = Answer::Read {
            connection,
            feeds,
            reading,
        };
        self.core.answer(answer, now);
    }

    /// Something happens to one of the commands. The streams that get a reading, and the reading.
    pub fn operate(
        &mut self,
        server: &mut Server,
        step: usize,
        now: Instant,
        mix: Mix,
        rng: &mut StdRng,
        trace: &mut Trace,
    ) -> Option<(Vec<StreamNo>, Reading)> {
        let due: Vec<usize> = (0..self.operations.len())
            .filter(|index| self.operations[*index].not_before <= step)
            .collect();
        if due.is_empty() {
            return None;
        }
        let index = due[rng.random_range(0..due.len())];
        let answered = !matches!(self.operations[index].state, State::Waiting | State::Sent);
        if !answered {
            let (many, served) = (
                self.operations.len(),
                self.carry_out(index, server, rng, trace),
            );
            if self.operations.len() == many
                && let operation = &mut self.operations[index]
                && !matches!(operation.state, State::Waiting | State::Sent)
            {
                // And some replies take very long to come.
                operation.not_before = step + lateness(rng, mix.slow_replies);
            }
            return served;
        }
        // The reply may be lost on the way: then it is asked again.
        if mix.cuts && rng.random_bool(0.1) {
            self.operations[index].state = State::Waiting;
            return None;
        }
        let operation = self.operations.swap_remove(index);
        match (operation.command, operation.state) {
            (Command::Settle(connection, _, _, mut told), _) => {
                told.sort_by_key(|(partition, _)| *partition);
                let told = told.into_iter().map(|(_, clock)| clock).collect();
                self.core.answer(Answer::Settled { connection, told }, now);
            }
            (Command::Tick(connection, partition), State::Ticked(id)) => {
                self.core
                    .answer(Answer::Ticked(connection, partition, Ok(id)), now);
            }
            (Command::Repair(connection, feeds, _), State::Read(reading)) => {
                self.take_repair(connection, feeds, reading, now, trace);
            }
            (Command::Shared(read), State::Read(mut reading)) => {
                let pages = reading.pages.iter().map(|page| {
                    let last = page.frames.last().map(|frame| frame.id);
                    let topic = page.topic.as_str();
                    (topic, page.after, page.floor, last, page.cut_at)
                });
                trace.push(format!(
                    "has read up to {}: {:?}",
                    reading.horizon.last,
                    pages.collect::<Vec<_>>()
                ));
                let finished = self.reads.finish(&read, &mut reading, &self.hub);
                let served = match finished {
                    Finished::Done(served) => served,
                    Finished::Again(served) => {
                        self.send(Command::Shared(read), step, rng);
                        served
                    }
                };
                return Some((served, reading));
            }
            (Command::Tick(..) | Command::Repair(..) | Command::Shared(_), _) => {
                unreachable!("answers fit their commands")
            }
        }
        None
    }

    fn carry_out(
        &mut self,
        index: usize,
        server: &mut Server,
        rng: &mut StdRng,
        trace: &mut Trace,
    ) -> Option<(Vec<StreamNo>, Reading)> {
        let present = self.core.connection();
        let operation = &mut self.operations[index];
        let most = rng.random_range(1..6);
        match &mut operation.command {
            Command::Settle(connection, reports, partitions, told) => {
                // It is given up when the connection is another one, wherever it has come to.
                if *connection != present {
                    operation.state = State::Done;
                } else if let Some(report) = reports.pop() {
                    trace.push(format!(
                        "reports {:?}: {:?}",
                        report.followed, report.topics
                    ));
                    server.configure();
                    let Report {
                        partition,
                        followed,
                        mut topics,
                    } = report;
                    // Many topics are reported in parts, and others report in between.
                    let part = rng.random_range(0..=topics.len());
                    let more = topics.split_off(part);
                    let clock = server.report(partition, followed, &topics);
                    if told.iter().all(|(known, _)| *known != partition) {
                        told.push((partition, clock));
                    }
                    if !more.is_empty() {
                        reports.push(Report {
                            partition,
                            followed,
                            topics: more,
                        });
                    }
                } else if let Some(partition) = partitions.pop() {
                    server.configure();
                    server.tick(partition);
                } else {
                    operation.state = State::Done;
                }
            }
            Command::Repair(_, _, read) => operation.state = State::Read(server.read(read, most)),
            Command::Tick(_, partition) => operation.state = State::Ticked(server.tick(*partition)),
            Command::Shared(read) => {
                if matches!(operation.state, State::Waiting) {
                    // It has got its place.
                    match self.reads.begin(read, &self.hub, |_| true) {
                        Begun::Ask => operation.state = State::Sent,
                        Begun::Wait => {}
                        Begun::Off => {
                            self.operations.swap_remove(index);
                        }
                    }
                } else {
                    operation.state = State::Read(server.read(read, most));
                }
            }
        }
        None
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self, server: &Server) -> bool {
        self.operations.is_empty()
            && self.interest.is_empty()
            && self.connection.as_ref().is_some_and(|connection| {
                connection.next == server.sent.len() && connection.orders.is_empty()
            })
    }
}

/// Steps that something takes longer than it must: none, as a rule.
fn lateness(rng: &mut StdRng, often: bool) -> usize {
    if rng.random_bool(if often { 0.5 } else { 0.08 }) {
        rng.random_range(0..150)
    } else {
        0
    }
}

impl Connection {
    fn hears(&self, topic: &Topic, at: usize) -> bool {
        let stretches = self.subscribed.get(topic);
        let mut stretches = stretches.into_iter().flatten();
        stretches.any(|(from, until)| *from <= at && until.is_none_or(|until| at < until))
    }
}
