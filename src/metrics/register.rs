//! Making and registering metrics.

use super::labels::Label;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// A metric with one label: a child for each of its values, made once.
#[derive(Debug)]
pub(super) struct Family<L, M> {
    children: Vec<(L, M)>,
}

impl<L: Label, M> Family<L, M> {
    fn new(values: &[L], child: impl Fn(L) -> M) -> Self {
        let children = values.iter().map(|value| (*value, child(*value)));
        Self {
            children: children.collect(),
        }
    }

    /// The child of a value; none if the metric leaves that value out. There are a handful: comparing
    /// them is cheaper than hashing.
    pub(super) fn of(&self, value: L) -> Option<&M> {
        let child = self.children.iter().find(|(known, _)| *known == value);
        debug_assert!(child.is_some(), "{} is left out here", value.text());
        child.map(|(_, child)| child)
    }
}

impl<L: Label> Family<L, IntCounter> {
    pub(super) fn inc(&self, value: L) {
        self.add(value, 1);
    }

    pub(super) fn add(&self, value: L, count: u64) {
        if let Some(counter) = self.of(value) {
            counter.inc_by(count);
        }
    }
}

impl<L: Label> Family<L, IntGauge> {
    pub(super) fn inc(&self, value: L) {
        if let Some(gauge) = self.of(value) {
            gauge.inc();
        }
    }

    pub(super) fn dec(&self, value: L) {
        if let Some(gauge) = self.of(value) {
            gauge.dec();
        }
    }

    pub(super) fn set(&self, value: L, to: i64) {
        if let Some(gauge) = self.of(value) {
            gauge.set(to);
        }
    }
}

/// Makes and registers metrics named `tidegate_<name>`.
pub(super) struct Register<'a>(pub(super) &'a Registry);

#[expect(
    clippy::expect_used,
    reason = "names are constants; the first start of any test shows a clash"
)]
impl Register<'_> {
    pub(super) fn add<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a valid name");
        self.0
            .register(Box::new(metric.clone()))
            .expect("registered once");
        metric
    }

    pub(super) fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("tidegate_{name}"), help)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(Self::opts(name, help)))
    }

    pub(super) fn gauges<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Family<L, IntGauge> {
        let gauges = self.add(IntGaugeVec::new(Self::opts(name, help), &[label]));
        Family::new(L::ALL, |value| gauges.with_label_values(&[value.text()]))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)))
    }

    pub(super) fn counters<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Family<L, IntCounter> {
        self.counters_of(name, help, label, L::ALL)
    }

    /// Counters of some values only.
    pub(super) fn counters_of<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[L],
    ) -> Family<L, IntCounter> {
        let counters = self.add(IntCounterVec::new(Self::opts(name, help), &[label]));
        Family::new(values, |value| counters.with_label_values(&[value.text()]))
    }

    /// Counters with two labels, by the first and then by the second.
    pub(super) fn counters_by<L: Label, K: Label>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
    ) -> Family<L, Family<K, IntCounter>> {
        let counters = self.add(IntCounterVec::new(Self::opts(name, help), &labels));
        let child = |first: L, second: K| [first.text(), second.text()];
        Family::new(L::ALL, |first| {
            Family::new(K::ALL, |second| {
                counters.with_label_values(&child(first, second))
            })
        })
    }

    /// A counter of seconds, which may be fractions.
    pub(super) fn seconds(&self, name: &str, help: &str) -> Counter {
        self.add(Counter::with_opts(Self::opts(name, help)))
    }

    pub(super) fn seconds_of(&self, name: &str, help: &str, label: &str) -> CounterVec {
        self.add(CounterVec::new(Self::opts(name, help), &[label]))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts))
    }

    /// Histograms of some values only.
    pub(super) fn histograms_of<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[L],
        buckets: &[f64],
    ) -> Family<L, Histogram> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(buckets.to_vec());
        let histograms = self.add(HistogramVec::new(opts, &[label]));
        Family::new(values, |value| {
            histograms.with_label_values(&[value.text()])
        })
    }
}
