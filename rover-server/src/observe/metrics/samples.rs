//! Collects named figures for Prometheus, adds them up over the workers, and writes them as text.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
struct Family {
    kind: MetricKind,
    help: &'static str,
    /// By labels, then by place among the lines of the same labels.
    values: BTreeMap<(String, usize), SampleValue>,
}

#[derive(Clone, Debug)]
struct SampleValue {
    /// Behind the name.
    suffix: &'static str,
    /// The upper bound of a bucket.
    bound: Option<f64>,
    number: f64,
}

/// Names and figures. What is noted twice under the same name and labels adds up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Family>);

/// Names of labels and their values.
pub(crate) type Labels<'a> = [(&'static str, &'a str)];

impl Samples {
    /// Notes a counter. Its name ends in `_total`.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, number: f64) {
        self.add(name, MetricKind::Counter, help, labels, 0, SampleValue { suffix: "", bound: None, number });
    }

    /// Notes a gauge.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, number: f64) {
        self.add(name, MetricKind::Gauge, help, labels, 0, SampleValue { suffix: "", bound: None, number });
    }

    /// Notes how often a figure was within each of `buckets`: upper bounds and counts, the last bound infinite.
    pub(crate) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        buckets: impl Iterator<Item = (f64, u64)>,
        sum: f64,
    ) {
        let mut count = 0;
        let mut place = 0;
        for (bound, within) in buckets {
            count += within;
            let value = SampleValue { suffix: "_bucket", bound: Some(bound), number: count as f64 };
            self.add(name, MetricKind::Histogram, help, labels, place, value);
            place += 1;
        }
        for (suffix, number) in [("_sum", sum), ("_count", count as f64)] {
            self.add(name, MetricKind::Histogram, help, labels, place, SampleValue { suffix, bound: None, number });
            place += 1;
        }
    }

    fn add(
        &mut self,
        name: &'static str,
        kind: MetricKind,
        help: &'static str,
        labels: &Labels<'_>,
        place: usize,
        value: SampleValue,
    ) {
        let family = self.0.entry(name).or_insert_with(|| Family { kind, help, values: BTreeMap::new() });
        let known =
            family.values.entry((written(labels), place)).or_insert_with(|| SampleValue { number: 0.0, ..value });
        known.number += value.number;
    }

    /// Adds another collection to this one.
    pub(crate) fn merge(&mut self, other: Samples) {
        for (name, family) in other.0 {
            let known = self.0.entry(name).or_insert_with(|| Family { values: BTreeMap::new(), ..family });
            for (key, value) in family.values {
                let own = known.values.entry(key).or_insert_with(|| SampleValue { number: 0.0, ..value });
                own.number += value.number;
            }
        }
    }

    /// Keeps only the counters, which must not shrink when their worker is gone.
    pub(crate) fn totals(mut self) -> Samples {
        self.0.retain(|_, family| family.kind != MetricKind::Gauge);
        self
    }

    /// The text that Prometheus reads, in the order of the names.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.0 {
            let kind = match family.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for ((labels, _), value) in &family.values {
                let bound = match value.bound {
                    Some(bound) if bound.is_infinite() => "le=\"+Inf\"".to_owned(),
                    Some(bound) => format!("le=\"{bound}\""),
                    None => String::new(),
                };
                let comma = if labels.is_empty() || bound.is_empty() { "" } else { "," };
                let (open, close) = if labels.is_empty() && bound.is_empty() { ("", "") } else { ("{", "}") };
                let _ = writeln!(out, "{name}{}{open}{labels}{comma}{bound}{close} {}", value.suffix, value.number);
            }
        }
        out
    }
}

/// Labels as they are written between the braces.
fn written(labels: &Labels<'_>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_add_up_and_are_written_in_order() {
        let mut one = Samples::default();
        one.counter("b_total", "b", &[("route", "/\"x\"")], 1.0);
        one.gauge("a", "a", &[], 2.5);
        one.histogram("c", "c", &[("w", "1")], [(0.5, 1), (f64::INFINITY, 2)].into_iter(), 4.0);
        let mut two = one.clone();
        two.counter("b_total", "b", &[("route", "other")], 7.0);
        two.merge(one);
        assert_eq!(
            two.text(),
            "# HELP a a\n# TYPE a gauge\na 5\n\
             # HELP b_total b\n# TYPE b_total counter\nb_total{route=\"/\\\"x\\\"\"} 2\nb_total{route=\"other\"} 7\n\
             # HELP c c\n# TYPE c histogram\nc_bucket{w=\"1\",le=\"0.5\"} 2\nc_bucket{w=\"1\",le=\"+Inf\"} 6\n\
             c_sum{w=\"1\"} 8\nc_count{w=\"1\"} 6\n"
        );
    }
}
