//! How metrics are made and registered.
//!
//! Guarantees: all metrics of one maker share its labels, and what it made can be taken out of the registry
//! again.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use super::Known;
use super::names::Family;

/// Makes and registers metrics that share their constant labels.
pub(super) struct Labelled<'a> {
    registry: &'a Registry,
    labels: &'a [(&'static str, &'a str)],
    made: RefCell<Vec<Box<dyn Collector>>>,
}

impl<'a> Labelled<'a> {
    pub(super) fn new(registry: &'a Registry, labels: &'a [(&'static str, &'a str)]) -> Self {
        Self { registry, labels, made: RefCell::default() }
    }

    fn opts(&self, family: Family) -> Opts {
        self.labels
            .iter()
            .fold(Opts::new(family.name, family.help), |opts, (name, value)| opts.const_label(*name, *value))
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("names and labels are constants that a test makes once");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each pipeline and shard is registered once, with the same label names");
        self.made.borrow_mut().push(Box::new(metric.clone()));
        metric
    }

    pub(super) fn counter(&self, family: Family) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(family)))
    }

    pub(super) fn counters(&self, family: Family, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(family), &[label]))
    }

    pub(super) fn float_counters(&self, family: Family, label: &str) -> CounterVec {
        self.register(CounterVec::new(self.opts(family), &[label]))
    }

    pub(super) fn gauge(&self, family: Family) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(family)))
    }

    pub(super) fn gauges(&self, family: Family, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(family), &[label]))
    }

    pub(super) fn known(&self, family: Family) -> Known {
        Known::new(self.float_gauge(family))
    }

    pub(super) fn float_gauges(&self, family: Family, label: &str) -> GaugeVec {
        self.register(GaugeVec::new(self.opts(family), &[label]))
    }

    pub(super) fn float_gauge(&self, family: Family) -> Gauge {
        self.register(Gauge::with_opts(self.opts(family)))
    }

    pub(super) fn histogram(&self, family: Family, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: self.opts(family), buckets: buckets.to_vec() };
        self.register(Histogram::with_opts(opts))
    }

    /// Counters of which nothing is shown until somebody knows what they have counted before.
    pub(super) fn told(&self, told: &Told, family: Family) -> IntCounter {
        let counter = IntCounter::with_opts(self.opts(family));
        let counter = counter.expect("names and labels are constants that a test makes once");
        self.register(Ok(Shown { told: told.clone(), counter: counter.clone() }));
        counter
    }

    /// The same with a label.
    pub(super) fn told_by(&self, told: &Told, family: Family, label: &str) -> IntCounterVec {
        let counters = IntCounterVec::new(self.opts(family), &[label]);
        let counters = counters.expect("names and labels are constants that a test makes once");
        self.register(Ok(Shown { told: told.clone(), counter: counters.clone() }));
        counters
    }

    /// All that was made.
    pub(super) fn made(self) -> Collectors {
        Collectors(self.made.into_inner())
    }
}

/// Whether it is known what counters have counted before this process; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<AtomicBool>);

impl Told {
    /// It is known now.
    pub(super) fn known(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters that are shown once it is known what they have counted before.
#[derive(Clone)]
struct Shown<C> {
    told: Told,
    counter: C,
}

impl<C: Collector> Collector for Shown<C> {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.told.is_known() { self.counter.collect() } else { Vec::new() }
    }
}

/// What a registry holds of one pipeline.
pub(super) struct Collectors(pub(super) Vec<Box<dyn Collector>>);

impl fmt::Debug for Collectors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Collectors").field(&self.0.len()).finish()
    }
}
