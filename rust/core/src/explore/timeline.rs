//! Timelines: what happened in one schedule, step by step.

use crate::platform::CpuId;

/// What a step of a timeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Load,
    Store,
    Swap,
    /// A compare-exchange that stored.
    Exchange,
    /// A compare-exchange that found something else.
    FailedExchange,
    Add,
    /// A read by hardware.
    Observe,
    /// Waiting began, ended, or something else that is no access.
    Event,
    /// A check of the handler that held, or did not: it gave up.
    Passed,
    Failed,
    /// A check was left out.
    Mutant,
    /// The invariant broke.
    Finding,
}

impl Access {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Swap => "swap",
            Self::Exchange => "cas",
            Self::FailedExchange => "cas-failed",
            Self::Add => "add",
            Self::Observe => "observe",
            Self::Event => "event",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Mutant => "mutant",
            Self::Finding => "finding",
        }
    }

    /// Whether it is an access, and not something that happened.
    pub(super) fn is_of_a_word(self) -> bool {
        self.stores() || matches!(self, Self::Load | Self::FailedExchange | Self::Observe)
    }

    fn stores(self) -> bool {
        matches!(self, Self::Store | Self::Swap | Self::Exchange | Self::Add)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub cpu: CpuId,
    /// The protocol step, as the code names it.
    pub function: &'static str,
    pub access: Access,
    /// The word, or what happened.
    pub what: String,
    /// The value before.
    pub before: u64,
    /// The value after, if the access stores.
    pub after: u64,
    /// What the two values say.
    pub texts: [String; 2],
}

impl Step {
    /// The step as one line of text, without the CPU.
    pub fn to_text(&self) -> String {
        let place =
            if self.function.is_empty() { String::new() } else { format!("{}: ", self.function) };
        match self.access {
            access if !access.is_of_a_word() => place + &self.what,
            access if access.stores() => {
                let [before, after] = &self.texts;
                format!("{place}{} {} {before} -> {after}", access.name(), self.what)
            }
            access => format!("{place}{} {} = {}", access.name(), self.what, self.texts[0]),
        }
    }

    fn push_json(&self, json: &mut String) {
        json.push_str(&format!(
            r#"{{"cpu":{},"function":"{}","access":"{}","what":"{}""#,
            self.cpu,
            escape(self.function),
            self.access.name(),
            escape(&self.what)
        ));
        let [before, after] = &self.texts;
        if self.access.is_of_a_word() {
            json.push_str(&format!(r#","value":"{:#x}","text":"{}""#, self.before, escape(before)));
        }
        if self.access.stores() {
            json.push_str(&format!(r#","new":"{:#x}","new_text":"{}""#, self.after, escape(after)));
        }
        json.push('}');
    }
}

/// Steps as a JSON list.
pub(super) fn push_steps(json: &mut String, steps: &[Step]) {
    json.push('[');
    for (nth, step) in steps.iter().enumerate() {
        if nth != 0 {
            json.push(',');
        }
        step.push_json(json);
    }
    json.push(']');
}

/// A string's characters for JSON.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            control if (control as u32) < 0x20 => {
                escaped.push_str(&format!("\\u{:04x}", control as u32));
            }
            other => escaped.push(other),
        }
    }
    escaped
}
