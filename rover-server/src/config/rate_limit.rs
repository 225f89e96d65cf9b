//! Comes in: the keys in `rate_limit = { … }`, and the tables given to `api.….limit { … }`. Goes out: rules, as data.
//! Must not know: requests, and how is counted.

use std::time::Duration;

use super::key::ConfigKey;
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

const RATE: &str = "a rate, such as \"5/m\" or \"100/10s\"";
const BURST: &str = "a whole number from 1 to 1000000000";
const PER: &str = "\"ip\", \"header:NAME\", \"cookie:NAME\" or a function";

impl LimitRule {
    /// Reads the table given to `limit { … }`.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn read(entries: &[(String, ConfigValue)]) -> Result<LimitRule, Vec<String>> {
        let (mut rate, mut burst, mut per) = (None, None, Per::Ip);
        let mut mistakes = Vec::new();
        for (name, value) in entries {
            let wrong = |takes: &str, hint: &str| format!("{name} must be {takes}, got {value}{hint}");
            match name.as_str() {
                "rate" => match Rate::parse(value) {
                    Ok(known) => rate = Some(known),
                    Err(hint) => mistakes.push(wrong(RATE, hint)),
                },
                "burst" => match whole(value) {
                    Some(known) => burst = Some(known),
                    None => mistakes.push(wrong(BURST, "")),
                },
                "per" => match Per::parse(value) {
                    Ok(known) => per = known,
                    Err(hint) => mistakes.push(wrong(PER, hint)),
                },
                _ => mistakes.push(format!("unknown field {name:?}; a limit has rate, burst, per and methods")),
            }
        }
        match rate {
            Some(rate) if mistakes.is_empty() => Ok(LimitRule { rate, burst: burst.unwrap_or(rate.count), per }),
            None if mistakes.is_empty() => Err(vec![format!("rate is missing: {RATE}")]),
            _ => Err(mistakes),
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

fn whole(value: &ConfigValue) -> Option<u32> {
    u32::try_from(value.whole(1, MOST.into())?).ok()
}

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

pub(super) static RATE_LIMIT_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "rate_limit.rate",
        what: "requests of one client, to all paths together; 429 above",
        takes: "a rate, such as \"5/m\" or \"100/10s\", or \"none\"",
        default: "none",
        example: "\"100/s\"",
        store: |config, value| {
            config.rate_limit.rate = match value.text() {
                Some("none") => None,
                _ => Some(Rate::parse(value)?),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "rate_limit.burst",
        what: "requests that may come at once",
        takes: "a whole number from 1 to 1000000000, or \"rate\" for the number in the rate",
        default: "rate",
        example: "200",
        store: |config, value| {
            config.rate_limit.burst = match value.text() {
                Some("rate") => None,
                _ => Some(whole(value).ok_or("")?),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "rate_limit.per",
        what: "by what clients are told apart; the function gets ctx and returns a string, or nil for no limit",
        takes: PER,
        default: "ip",
        example: "\"header:X-Api-Key\"",
        store: |config, value| {
            config.rate_limit.per = Per::parse(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "rate_limit.max_keys",
        what: "clients that all limits together remember, at about 25 bytes each",
        takes: "a whole number from 1024 to 100000000",
        default: "131072",
        example: "1000000",
        store: |config, value| {
            let keys = value.whole(1024, 100_000_000).ok_or("")?;
            config.rate_limit.max_keys = usize::try_from(keys).map_err(|_| "")?;
            Ok(())
        },
    },
];

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
