//! The keys of `otlp = { … }`. Comes in: a value, and the variables that the OpenTelemetry specification names. Goes out:
//! where spans go, and which. Must not know: who makes or sends them.

use std::time::Duration;

use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::ConfigMistake;
use super::key::{ConfigKey, Group};
use super::kind::{Kind, choice, count_in, custom, flag, text, time};
use super::value::{ConfigValue, is_token};

/// What becomes of the server's traces. Only a build with the feature `otlp` takes anything but the defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtlpSettings {
    /// The URL that spans are sent to. `None`: there are no spans.
    pub(crate) endpoint: Option<String>,
    /// Of each request to it.
    pub(crate) headers: Pairs,
    /// `None` only before the config is complete.
    pub(crate) service_name: Option<String>,
    /// Further attributes of the resource that the spans are about.
    pub(crate) resource: Pairs,
    /// The share of the traces begun here that are recorded, 0 to 1.
    pub(crate) sample: f64,
    /// Spans that wait are sent so often. Never zero.
    pub(crate) interval: Duration,
    /// How many may wait in a worker. Never zero.
    pub(crate) queue: usize,
    /// What sending some of them may take, attempts and waits included. Never zero.
    pub(crate) timeout: Duration,
    /// Whether what is sent is compressed. `None`: where the collector is on another host.
    pub(crate) compression: Option<bool>,
    /// Whether spans tell the queries of URLs.
    pub(crate) query: bool,
    /// A file of authorities to trust besides the system's.
    pub(crate) ca: Option<String>,
}

/// Names and values.
pub(crate) type Pairs = Vec<(String, String)>;

impl Default for OtlpSettings {
    fn default() -> Self {
        OtlpSettings {
            endpoint: None,
            headers: Pairs::new(),
            service_name: None,
            resource: Pairs::new(),
            sample: 1.0,
            interval: Duration::from_secs(5),
            queue: 2048,
            timeout: Duration::from_secs(10),
            compression: None,
            query: false,
            ca: None,
        }
    }
}

/// Behind the base URL, as the specification of the OTLP exporter has it for `OTEL_EXPORTER_OTLP_ENDPOINT`.
const TRACES: &str = "/v1/traces";

const URL: &str = "a URL that begins with http:// or https://";
const PAIRS: &str = "names and values, as a table or as text such as \"a=1,b=2\"";

impl OtlpSettings {
    /// Why these settings cannot be served by this build.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        (!cfg!(feature = "otlp") && *self != OtlpSettings::default()).then_some(
            "otlp is set, but this rover was built without it; build one that has it: \
             cargo build --release --features otlp",
        )
    }

    /// Calls the service by the file of its app, where nothing else names it.
    pub(crate) fn name_service(&mut self, file: &str) {
        self.service_name.get_or_insert_with(|| file.to_owned());
    }

    /// Takes the standard variables, over which every key of Rover's own wins. They are shared with other programs, so a
    /// build that exports nothing leaves them alone.
    pub(super) fn take_standard(&mut self, variable: impl Fn(&str) -> Option<String>) -> Vec<ConfigMistake> {
        if !cfg!(feature = "otlp") {
            return Vec::new();
        }
        let variable = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, variable(name)?)));
        let mut mistakes = Vec::new();
        let mut wrong = |name: &str, takes: &str, got: &str| {
            mistakes.push(ConfigMistake(format!("{name} must be {takes}, got {got:?}")));
        };
        let pairs = |text: &str| pairs_of_text(text).map(decoded);
        if let Some((name, text)) = first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]) {
            match pairs(&text).and_then(headers) {
                Some(headers) => self.headers = headers,
                // Not shown: it holds keys.
                None => wrong(name, PAIRS, "…"),
            }
        }
        if let Some(text) = variable("OTEL_RESOURCE_ATTRIBUTES") {
            match pairs(&text) {
                Some(mut pairs) => {
                    pairs.retain(|(name, value)| {
                        let is_name = name == "service.name";
                        if is_name {
                            self.service_name = Some(value.clone());
                        }
                        !is_name
                    });
                    self.resource = pairs;
                }
                None => wrong("OTEL_RESOURCE_ATTRIBUTES", PAIRS, &text),
            }
        }
        self.service_name = variable("OTEL_SERVICE_NAME").or(self.service_name.take());
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return mistakes;
        }
        let own =
            variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|url| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url, ""));
        let endpoint = own.or_else(|| {
            let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
            variable(name).map(|url| (name, url, TRACES))
        });
        let Some((name, url, path)) = endpoint else { return mistakes };
        match endpoint_of(&url, path) {
            Some(endpoint) => self.endpoint = Some(endpoint),
            None => wrong(name, URL, &url),
        }
        let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        if let Some((name, protocol)) = protocol.filter(|(_, protocol)| protocol != "http/protobuf") {
            wrong(name, "\"http/protobuf\", which is what Rover speaks", &protocol);
        }
        mistakes
    }
}

/// The URL with the path behind it, where it is one that can be requested.
fn endpoint_of(url: &str, path: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    (is_http && has_host && uri.query().is_none()).then(|| match path {
        "" => url.to_owned(),
        path => format!("{}{path}", url.trim_end_matches('/')),
    })
}

/// `a=1,b=2`.
fn pairs_of_text(text: &str) -> Option<Pairs> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// In the standard variables values are percent-encoded, as those of `baggage` are.
fn decoded(pairs: Pairs) -> Pairs {
    let decode = |text: String| percent_decode_str(&text).decode_utf8_lossy().into_owned();
    pairs.into_iter().map(|(name, value)| (decode(name), decode(value))).collect()
}

fn pairs(value: &ConfigValue) -> Option<Pairs> {
    match value {
        ConfigValue::Text(text) if text.trim() == "none" => Some(Pairs::new()),
        ConfigValue::Text(text) => pairs_of_text(text),
        ConfigValue::List(values) if values.is_empty() => Some(Pairs::new()),
        ConfigValue::Table(entries) => {
            entries.iter().map(|(name, value)| Some((name.clone(), plain(value)?))).collect()
        }
        _ => None,
    }
}

fn plain(value: &ConfigValue) -> Option<String> {
    match value {
        ConfigValue::Text(text) => Some(text.clone()),
        ConfigValue::Number(_) | ConfigValue::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The most header fields for the collector.
const MOST_HEADERS: usize = 1000;

/// The pairs, where all can be header fields.
fn headers(pairs: Pairs) -> Option<Pairs> {
    let is_field = |(name, value): &(String, String)| is_token(name) && HeaderValue::from_str(value).is_ok();
    (pairs.len() <= MOST_HEADERS && pairs.iter().all(is_field)).then_some(pairs)
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.otlp)
        .table("otlp")
        .key("endpoint", "base URL of a collector that gets the server's spans; /v1/traces is put behind it")
        .takes(collector().or("off"), |otlp| &mut otlp.endpoint)
        .key("headers", "headers of each request to the collector, such as an API key")
        .takes(custom(PAIRS, "none", |value| pairs(value).and_then(headers).ok_or("")), |otlp| &mut otlp.headers)
        .key(
            "service_name",
            "service.name of the spans; the name of the app's file without its ending where it is \"auto\"",
        )
        .takes(text("text").or("auto"), |otlp| &mut otlp.service_name)
        .key("resource", "further attributes of the service, such as deployment.environment.name")
        .takes(custom(PAIRS, "none", |value| pairs(value).ok_or("")), |otlp| &mut otlp.resource)
        .key("sample", "share of the traces begun here that is recorded; whoever sends a traceparent has decided")
        .takes(share(), |otlp| &mut otlp.sample)
        .key("interval", "seconds that a span waits at most before it is sent")
        .takes(time().above_zero(), |otlp| &mut otlp.interval)
        .key("queue", "spans that may wait in each worker; further ones are dropped and counted")
        .takes(count_in(1..=100_000), |otlp| &mut otlp.queue)
        .key("timeout", "seconds that sending a batch of spans may take, further attempts included")
        .takes(time().above_zero(), |otlp| &mut otlp.timeout)
        .key(
            "compression",
            "whether spans are compressed on their way; auto is gzip to other hosts and none within this one",
        )
        .takes(choice([("auto", None), ("gzip", Some(true)), ("none", Some(false))]), |otlp| &mut otlp.compression)
        .key("query", "whether spans tell the queries of URLs, which may hold secrets")
        .takes(flag(), |otlp| &mut otlp.query)
        .key("ca", "PEM file of the authorities that the collector's certificate may come from; else the system's")
        .takes(text("the name of a file").or("system"), |otlp| &mut otlp.ca)
        .keys()
}

fn collector() -> Kind<String> {
    custom(URL, "off", |value| endpoint_of(value.text().ok_or("")?, TRACES).ok_or(""))
}

fn share() -> Kind<f64> {
    custom("a number from 0 to 1", "1", |value| {
        let share = match value {
            ConfigValue::Number(number) => Some(*number),
            value => value.text().and_then(|text| text.parse().ok()),
        };
        share.filter(|share| (0.0..=1.0).contains(share)).ok_or("")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard(variables: &[(&str, &str)]) -> (OtlpSettings, Vec<String>) {
        let mut settings = OtlpSettings::default();
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        let mistakes = settings.take_standard(variable);
        (settings, mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn endpoints() {
        let of = |text: &str| endpoint_of(text, TRACES);
        assert_eq!(of("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(of("https://otel.test/base/").as_deref(), Some("https://otel.test/base/v1/traces"));
        for wrong in ["", "otel.test:4318", "grpc://otel.test", "http://", "http://a/?b"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[cfg(feature = "otlp")]
    fn standard_variables() {
        let (settings, mistakes) = standard(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.test:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, other=2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"),
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]);
        assert_eq!(mistakes, Vec::<String>::new());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.endpoint.as_deref(), Some("http://otel.test:4318/v1/traces"));
        assert_eq!(settings.headers, [pair("api-key", "a b"), pair("other", "2")]);
        assert_eq!(settings.resource, [pair("deployment.environment.name", "a,b")]);
        assert_eq!(settings.service_name.as_deref(), Some("shop"));

        let (settings, _) = standard(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel.test/spans")]);
        assert_eq!(settings.endpoint.as_deref(), Some("http://otel.test/spans"), "taken as it is");
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.test"), ("OTEL_SDK_DISABLED", "true")];
        assert_eq!(standard(&disabled).0.endpoint, None);
        let grpc = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.test:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert_eq!(
            standard(&grpc).1,
            ["OTEL_EXPORTER_OTLP_PROTOCOL must be \"http/protobuf\", which is what Rover speaks, got \"grpc\""]
        );
        let url = [("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")];
        let expected = "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL that begins with http:// or https://, got \
                        \"localhost:4318\"";
        assert_eq!(standard(&url).1, [expected]);
    }

    #[test]
    #[cfg(not(feature = "otlp"))]
    fn a_build_without_it_leaves_the_standard_variables_alone() {
        let (settings, mistakes) = standard(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "what?")]);
        assert_eq!((settings, mistakes), (OtlpSettings::default(), Vec::new()));
    }
}
