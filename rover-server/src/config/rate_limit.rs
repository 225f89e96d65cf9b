//! Comes in: the keys in `rate_limit = { … }`, and the tables given to `api.….limit { … }`. Goes out: rules, as data.
//! Must not know: requests, and how is counted.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{Kind, count_in, custom};
use super::value::{ConfigValue, is_token};

/// The limit of all requests, and what all limits share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RateLimit {
    pub(crate) rate: Option<Rate>,
    /// `None`: as many as the rate counts.
    pub(crate) burst: Option<u32>,
    pub(crate) per: Per,
    /// Clients that are remembered at a time.
    pub(crate) max_keys: usize,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { rate: None, burst: None, per: Per::Ip, max_keys: 131_072 }
    }
}

impl RateLimit {
    /// The rule for all requests, where there is one.
    pub(crate) fn rule(&self) -> Option<LimitRule> {
        let rate = self.rate?;
        Some(LimitRule { rate, burst: self.burst.unwrap_or(rate.count), per: self.per.clone() })
    }
}

/// So many requests in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Never zero.
    pub(crate) count: u32,
    /// At least a nanosecond for each request.
    pub(crate) period: Duration,
}

/// By what clients are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Per {
    /// Their address; an IPv6 network of 64 bits is one client.
    #[default]
    Ip,
    /// A request header, by its name in lower case; the address where it is missing.
    Header(String),
    /// A cookie; the address where it is missing.
    Cookie(String),
    /// A function of the app.
    Function,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitRule {
    pub(crate) rate: Rate,
    /// How many may come at once; never zero.
    pub(crate) burst: u32,
    pub(crate) per: Per,
}

impl LimitRule {
    /// Reads the table given to `limit { … }`.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn read(entries: &[(String, ConfigValue)]) -> Result<LimitRule, Vec<String>> {
        let (mut own_rate, mut own_burst, mut own_per) = (None, None, Per::Ip);
        let mut mistakes = Vec::new();
        for (name, value) in entries {
            let read = match name.as_str() {
                "rate" => rate().read(name, value).map(|rate| own_rate = Some(rate)),
                "burst" => burst().read(name, value).map(|burst| own_burst = Some(burst)),
                "per" => per().read(name, value).map(|per| own_per = per),
                _ => Err(format!("unknown field {name:?}; a limit has rate, burst, per and methods")),
            };
            mistakes.extend(read.err());
        }
        match own_rate {
            _ if !mistakes.is_empty() => Err(mistakes),
            Some(rate) => Ok(LimitRule { rate, burst: own_burst.unwrap_or(rate.count), per: own_per }),
            None => Err(vec![format!("rate is missing: {}", rate().takes)]),
        }
    }
}

impl Rate {
    /// Reads `"5/m"`, `"100/s"`, `"100/10s"`, `"1000/day"`.
    fn parse(value: &ConfigValue) -> Result<Rate, &'static str> {
        let (count, period) = value.text().and_then(|text| text.split_once('/')).ok_or("")?;
        let count = count.trim().parse().ok().filter(|count| (1..=MOST).contains(count)).ok_or("")?;
        let period = match period.trim() {
            "s" | "sec" | "second" => Duration::from_secs(1),
            "m" | "min" | "minute" => Duration::from_secs(60),
            "h" | "hour" => Duration::from_secs(3600),
            "d" | "day" => Duration::from_secs(86_400),
            text => ConfigValue::Text(text.to_owned()).time().filter(|time| !time.is_zero()).ok_or("")?,
        };
        match period.as_nanos() >= u128::from(count) {
            true => Ok(Rate { count, period }),
            false => Err("; that is more than one in a nanosecond"),
        }
    }
}

/// The largest number of requests in a limit.
const MOST: u32 = 1_000_000_000;

impl Per {
    fn parse(value: &ConfigValue) -> Result<Per, &'static str> {
        if *value == ConfigValue::Other("function") {
            return Ok(Per::Function);
        }
        let text = value.text().ok_or("")?;
        if text == "ip" {
            return Ok(Per::Ip);
        }
        let (kind, name) = text.split_once(':').ok_or("")?;
        let name = name.trim();
        if !is_token(name) {
            return Err("; the name consists of letters, digits and \"-\"");
        }
        match kind {
            "header" => Ok(Per::Header(name.to_ascii_lowercase())),
            "cookie" => Ok(Per::Cookie(name.to_owned())),
            _ => Err(""),
        }
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.rate_limit)
        .table("rate_limit")
        .key("rate", "requests of one client, to all paths together; 429 above")
        .takes(rate().or("none"), |limit| &mut limit.rate)
        .key("burst", "requests that may come at once; \"rate\" is the number in the rate")
        .takes(burst().or("rate"), |limit| &mut limit.burst)
        .key("per", "by what clients are told apart; the function gets ctx and returns a string, or nil for no limit")
        .takes(per(), |limit| &mut limit.per)
        .key("max_keys", "clients that all limits together remember, at about 25 bytes each")
        .takes(count_in(1024..=100_000_000), |limit| &mut limit.max_keys)
        .keys()
}

fn rate() -> Kind<Rate> {
    custom("a rate, such as \"5/m\" or \"100/10s\"", "none", Rate::parse)
}

fn burst() -> Kind<u32> {
    count_in(1..=MOST.into())
}

fn per() -> Kind<Per> {
    custom("\"ip\", \"header:NAME\", \"cookie:NAME\" or a function", "ip", Per::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> ConfigValue {
        ConfigValue::Text(text.into())
    }

    #[test]
    fn rates() {
        for (given, count, seconds) in
            [("5/m", 5, 60.0), ("100/s", 100, 1.0), (" 3 / 10s ", 3, 10.0), ("1/500ms", 1, 0.5), ("9/day", 9, 86_400.0)]
        {
            let expected = Rate { count, period: Duration::from_secs_f64(seconds) };
            assert_eq!(Rate::parse(&text(given)), Ok(expected), "{given}");
        }
        for wrong in ["5", "5/", "/m", "0/s", "-1/s", "5/fortnight", "5/0s", "1.5/s", "1000000000/1ms"] {
            assert!(Rate::parse(&text(wrong)).is_err(), "{wrong}");
        }
        assert!(Rate::parse(&ConfigValue::Number(5.0)).is_err());
    }

    #[test]
    fn tables_of_limits() {
        let read = |entries: &[(&str, ConfigValue)]| {
            let entries: Vec<_> = entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            LimitRule::read(&entries)
        };
        let rule = read(&[("rate", text("5/m")), ("per", text("header:X-Api-Key"))]).unwrap();
        assert_eq!((rule.burst, rule.per), (5, Per::Header("x-api-key".into())));
        assert_eq!(read(&[]).unwrap_err(), ["rate is missing: a rate, such as \"5/m\" or \"100/10s\""]);
        let wrong = read(&[
            ("burst", ConfigValue::Number(0.0)),
            ("by", text("ip")),
            ("per", text("user")),
            ("rate", text("fast")),
        ]);
        assert_eq!(
            wrong.unwrap_err(),
            [
                "burst must be a whole number from 1 to 1000000000, got 0",
                "unknown field \"by\"; a limit has rate, burst, per and methods",
                "per must be \"ip\", \"header:NAME\", \"cookie:NAME\" or a function, got \"user\"",
                "rate must be a rate, such as \"5/m\" or \"100/10s\", got \"fast\"",
            ]
        );
    }
}
