//! What is exposed, held against the list of names and the closed lists of label values.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metrics::MAX_FIELD_SERIES;
use crate::wire::Compressor;

const LABELS: Labels = Labels {
    commands: &["insert", "find", "aggregate"],
    refusals: &["regex-on-protected", "unknown-stage"],
    failures: &["tampered", "missing-key"],
    providers: &["file", "vault-transit"],
};

/// A value that only a document can hold, in every place where a string can be handed in.
const VALUE: &str = "9434765919 Jane \"Doe\"\n";

fn fields() -> Vec<(String, String)> {
    let pair = |ns: &str, field: &str| (ns.to_owned(), field.to_owned());
    vec![
        pair("clinic.patients", "nhs_number"),
        pair("tenant_*.patients", "contacts.phone"),
        pair("clinic.patients", "notes"),
    ]
}

fn event(command: &'static str, outcome: Outcome) -> CommandEvent {
    let mut event = CommandEvent::new(0, 1, VALUE, command);
    event.principal = Some(VALUE.into());
    event.fields = vec![VALUE.into()];
    event.outcome = outcome;
    event
}

/// Uses every way in there is, with words on and off the closed lists.
fn exercise(metrics: &Metrics) {
    for command in ["find", "insert", VALUE] {
        for word in ["unknown-stage", "tampered", VALUE] {
            metrics.observe(&event(command, Outcome::Ok));
            metrics.observe(&event(command, Outcome::Refused { reason: word }));
            metrics.observe(&event(command, Outcome::ServerError { code: 11000 }));
            metrics.observe(&event(command, Outcome::Failed { what: word }));
            metrics.observe(&event(command, Outcome::Dropped { reason: word }));
        }
    }
    for (namespace, field) in [
        ("clinic.patients", "notes"),
        (VALUE, "notes"),
        ("clinic.patients", VALUE),
    ] {
        let table = metrics.fields();
        let series = table.get(namespace, field).unwrap();
        series.sealed.inc_by(2);
        series.opened.inc();
        series.plaintext_found.inc();
    }
    for word in ["file", "unwrap", VALUE] {
        metrics.provider_call(word, word, true, Duration::from_millis(3));
        metrics.provider_call("file", word, false, Duration::from_millis(3));
    }
    metrics.added(Duration::from_micros(30));
    metrics.connection_opened();
    metrics.connection_ended(ConnectionEnd::Drained);
    metrics.bytes(Leg::Upstream, Direction::Out).inc_by(10);
    metrics.tls_handshake(Leg::Client, TlsVersion::None, false);
    metrics.set_audit(true, 17, 16, 1);
    metrics.set_keys_loaded(3);
    metrics.config_reload(false);
    metrics.set_certificate_expiry(Leg::Client, 4_102_444_800);
}

#[test]
fn no_label_can_hold_a_value_of_a_document() {
    let metrics = Metrics::new(&LABELS, &fields()).unwrap();
    exercise(&metrics);
    let allowed: BTreeMap<&str, BTreeSet<&str>> = [
        ("command", LABELS.commands.to_vec()),
        ("namespace", vec!["clinic.patients", "tenant_*.patients"]),
        ("field", vec!["nhs_number", "contacts.phone", "notes"]),
        ("reason", [LABELS.refusals, LABELS.failures].concat()),
        ("provider", LABELS.providers.to_vec()),
        ("operation", PROVIDER_OPERATIONS.to_vec()),
        ("leg", Leg::LABELS.to_vec()),
        ("direction", Direction::LABELS.to_vec()),
        ("compressor", Compressor::ALL.map(Compressor::name).to_vec()),
        (
            "version",
            [&TlsVersion::LABELS[..], &[env!("CARGO_PKG_VERSION")]].concat(),
        ),
        (
            "outcome",
            [
                &Outcome::LABELS[..],
                &OK_OR_ERROR,
                &RELOADS,
                &ConnectionEnd::LABELS,
            ]
            .concat(),
        ),
    ]
    .into_iter()
    .map(|(label, words)| (label, words.into_iter().chain([OTHER]).collect()))
    .collect();
    let mut seen = 0;
    for family in metrics.registry.gather() {
        for metric in family.get_metric() {
            for label in metric.get_label() {
                let words = allowed
                    .get(label.name())
                    .unwrap_or_else(|| panic!("label {}", label.name()));
                assert!(
                    words.contains(label.value()),
                    "{}={}",
                    label.name(),
                    label.value()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
    let text = metrics.render().unwrap();
    assert!(!text.contains("9434765919") && !text.contains("Jane"));
}

#[test]
fn exposes_exactly_the_listed_series_with_their_labels() {
    let metrics = Metrics::new(&LABELS, &fields()).unwrap();
    exercise(&metrics);
    metrics.refresh();
    let mut left: BTreeMap<_, _> = names::ALL.iter().map(|series| (series.name, series)).collect();
    assert_eq!(left.len(), names::ALL.len(), "a name is listed twice");
    for family in metrics.registry.gather() {
        let series = left
            .remove(family.name())
            .unwrap_or_else(|| panic!("{} is not listed", family.name()));
        assert_eq!(family.help(), series.help);
        let kind = match series.kind {
            Kind::Counter => prometheus::proto::MetricType::COUNTER,
            Kind::Gauge => prometheus::proto::MetricType::GAUGE,
            Kind::Histogram(_) => prometheus::proto::MetricType::HISTOGRAM,
        };
        assert_eq!(family.get_field_type(), kind);
        let mut labels = series.labels.to_vec();
        labels.sort_unstable();
        for metric in family.get_metric() {
            let shown: Vec<_> = metric.get_label().iter().map(|label| label.name()).collect();
            assert_eq!(shown, labels, "{}", series.name);
        }
    }
    assert!(left.is_empty(), "never exposed: {:?}", left.keys());
}

#[test]
fn counts_where_it_should() {
    let metrics = Metrics::new(&LABELS, &fields()).unwrap();
    exercise(&metrics);
    let text = metrics.render().unwrap();
    for line in [
        "fieldveil_commands_total{command=\"find\",outcome=\"refused\"} 3",
        "fieldveil_commands_total{command=\"other\",outcome=\"ok\"} 3",
        "fieldveil_refusals_total{reason=\"unknown-stage\"} 6",
        "fieldveil_refusals_total{reason=\"other\"} 12",
        "fieldveil_open_failures_total{reason=\"tampered\"} 3",
        "fieldveil_fields_sealed_total{field=\"notes\",namespace=\"clinic.patients\"} 2",
        "fieldveil_fields_sealed_total{field=\"other\",namespace=\"other\"} 4",
        "fieldveil_key_provider_calls_total{operation=\"unwrap\",outcome=\"error\",provider=\"file\"} 1",
        "fieldveil_connections 0",
        "fieldveil_connections_total{outcome=\"drained\"} 1",
        "fieldveil_bytes_total{direction=\"out\",leg=\"upstream\"} 10",
        "fieldveil_tls_handshakes_total{leg=\"client\",outcome=\"error\",version=\"none\"} 1",
        "fieldveil_audit_sequence 17",
        "fieldveil_audit_events_total 16",
        "fieldveil_config_reloads_total{outcome=\"rejected\"} 1",
        "fieldveil_added_seconds_bucket{le=\"0.00005\"} 1",
        "fieldveil_added_seconds_bucket{le=\"0.000025\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    assert!(
        !text.contains("leg=\"upstream\"} 4102"),
        "no certificate was set for that leg"
    );
}

#[test]
fn keeps_the_number_of_field_series_bounded_over_reloads() {
    let metrics = Metrics::new(&LABELS, &fields()).unwrap();
    for round in 0..3 {
        let many: Vec<_> = (0..800)
            .map(|n| (format!("db{round}.c"), format!("f{n}")))
            .collect();
        metrics.set_fields(&many);
    }
    metrics.set_fields(&fields());
    metrics
        .fields()
        .get("clinic.patients", "notes")
        .unwrap()
        .sealed
        .inc();
    let families = metrics.registry.gather();
    let sealed = families
        .iter()
        .find(|family| family.name() == names::SEALED.name)
        .unwrap();
    assert_eq!(sealed.get_metric().len(), MAX_FIELD_SERIES + 1);
    let text = metrics.render().unwrap();
    assert!(text.contains("fieldveil_fields_sealed_total{field=\"notes\",namespace=\"clinic.patients\"} 1"));
}
