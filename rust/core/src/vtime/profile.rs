//! Machines as data: one TOML text for each, and one way to read those that come with the package
//! and the user's. Each number has its kind and its source.

use std::sync::LazyLock;

use toml::{Table, Value};

use super::fields::{FIELDS, FITTABLE, Field, MAX_CPUS, Unit};
use super::machine::{Machine, NR_DISTANCES};
use crate::arch::Arch;

/// How a number came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody measured it, on the processor that the source names.
    Measured,
    /// Computed from what somebody measured.
    Derived,
    /// Chosen.
    Assumed,
    /// Chosen so that one published result comes out.
    Fitted,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Measured, Kind::Derived, Kind::Assumed, Kind::Fitted];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Measured => "measured",
            Kind::Derived => "derived",
            Kind::Assumed => "assumed",
            Kind::Fitted => "fitted",
        }
    }
}

/// A number, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: u64,
    pub kind: Kind,
    pub source: String,
}

/// What is known of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// The arch profile that it runs unless told otherwise.
    pub arch: String,
    pub summary: String,
    /// In the order of [`FIELDS`]; `None` where the topology leaves nothing to say.
    pub entries: Vec<Option<Entry>>,
}

/// Of an arch, a run that names none has the first that has enough CPUs. A machine comes after
/// the one that it is like.
const TEXTS: &[&str] = &[
    include_str!("../../machines/x86-48.toml"),
    include_str!("../../machines/power8-1024.toml"),
    include_str!("../../machines/power8-80.toml"),
    include_str!("../../machines/arm64-64.toml"),
    include_str!("../../machines/x86-vm16.toml"),
    include_str!("../../machines/broadwell-56.toml"),
    include_str!("../../machines/skylake-72.toml"),
    include_str!("../../machines/milan-72.toml"),
    include_str!("../../machines/skylake-80.toml"),
    include_str!("../../machines/icelake-128.toml"),
    include_str!("../../machines/skylake-192.toml"),
    include_str!("../../machines/zen5-256.toml"),
    include_str!("../../machines/graviton3-64.toml"),
    include_str!("../../machines/kunpeng-128.toml"),
];

static BUILTIN: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let mut known: Vec<Profile> = Vec::new();
    for text in TEXTS {
        let profile = parse(text).and_then(|table| read(&table, &known));
        known.push(profile.expect("a profile of the package"));
    }
    known
});

impl Profile {
    /// The machines that come with the package.
    pub fn builtin() -> &'static [Profile] {
        &BUILTIN
    }

    /// A machine from its TOML text. `Err`: field, value, what is allowed.
    pub fn from_toml(text: &str) -> Result<Profile, String> {
        Profile::from_table(&parse(text)?)
    }

    /// A machine from what a TOML text would say.
    pub fn from_table(table: &Table) -> Result<Profile, String> {
        read(table, Profile::builtin())
    }

    /// This machine with what `changes` says instead.
    pub fn replaced(&self, changes: &Table) -> Result<Profile, String> {
        let mut changes = changes.clone();
        if !changes.contains_key("name") {
            let told = FIELDS.iter().filter_map(|field| told(field, &changes));
            let name = std::iter::once(self.name.clone()).chain(told).collect::<Vec<_>>().join(",");
            changes.insert("name".into(), name.into());
        }
        let reader = Reader::new(&changes)?;
        if let Some(like) = changes.get("like") {
            return Err(reader.wrong("like", like, "none, for a machine is changed"));
        }
        reader.profile(Some(self), Some(&self.summary), Clone::clone)
    }

    /// How many CPUs it has.
    pub fn nr_cpus(&self) -> u32 {
        self.machine().nr_cpus()
    }

    /// As virtual time reads it.
    pub fn machine(&self) -> Machine {
        let (name, arch) = (self.name.clone(), self.arch.clone());
        let mut machine = Machine { name, arch, ..Machine::default() };
        for (field, entry) in FIELDS.iter().zip(&self.entries) {
            if let Some(entry) = entry {
                field.set(&mut machine, entry.value);
            }
        }
        for distance in 1..NR_DISTANCES {
            if machine.line_ns[distance] == 0 {
                machine.line_ns[distance] = machine.line_ns[distance - 1];
            }
        }
        machine
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries[Field::index(name)?].as_ref()
    }
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse().map_err(|wrong: toml::de::Error| {
        let before = wrong.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        format!("machine: line {line}: {}", wrong.message().replace('\n', ", "))
    })
}

/// A machine that may be like one of `known`.
fn read(table: &Table, known: &[Profile]) -> Result<Profile, String> {
    let reader = Reader::new(table)?;
    let Some(like) = table.get("like") else { return reader.profile(None, None, Clone::clone) };
    let parent = known.iter().find(|profile| Some(profile.name.as_str()) == like.as_str());
    let parent = parent.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|profile| profile.name.as_str()).collect();
        reader.wrong("like", like, &names.join(", "))
    })?;
    // What is known of one machine is an assumption about another.
    let summary = format!("like {}", parent.name);
    reader.profile(Some(parent), Some(&summary), |entry| {
        let Entry { value, kind, source } = entry;
        let source = match kind {
            Kind::Assumed if source.starts_with("as ") => source.clone(),
            _ => format!("as {}, {} there: {source}", parent.name, kind.name()),
        };
        Entry { value: *value, kind: Kind::Assumed, source }
    })
}

/// `field=value`, where the changes have one.
fn told(field: &Field, changes: &Table) -> Option<String> {
    let given = changes.get(field.name)?;
    let value = given.get("value").unwrap_or(given);
    Some(format!("{}={}", field.name, shown(value)))
}

const TEXT_KEYS: [&str; 4] = ["name", "arch", "summary", "like"];
const ENTRY_KEYS: [&str; 3] = ["value", "kind", "source"];

/// Reads one machine, and says of which one an error is.
struct Reader<'a> {
    table: &'a Table,
    name: String,
}

impl<'a> Reader<'a> {
    fn new(table: &'a Table) -> Result<Self, String> {
        let mut reader = Self { table, name: String::new() };
        reader.name = reader.text("name", None)?;
        for key in table.keys() {
            if !TEXT_KEYS.contains(&key.as_str()) && Field::index(key).is_none() {
                let keys = TEXT_KEYS.into_iter().chain(FIELDS.iter().map(|field| field.name));
                let keys: Vec<&str> = keys.collect();
                let name = &reader.name;
                return Err(format!(
                    "machine {name}: {key}: unknown (allowed: {})",
                    keys.join(", ")
                ));
            }
        }
        Ok(reader)
    }

    /// The machine; what it does not say is as `inherit` makes it of the parent's.
    fn profile(
        &self,
        parent: Option<&Profile>,
        summary: Option<&str>,
        inherit: impl Fn(&Entry) -> Entry,
    ) -> Result<Profile, String> {
        let entry = |field: &Field| match self.table.get(field.name) {
            Some(given) => self.entry(field, given).map(Some),
            None => Ok(parent.and_then(|parent| parent.entry(field.name)).map(&inherit)),
        };
        let mut profile = Profile {
            name: self.name.clone(),
            arch: self.text("arch", parent.map(|parent| parent.arch.as_str()))?,
            summary: self.text("summary", summary)?,
            entries: FIELDS.iter().map(entry).collect::<Result<_, _>>()?,
        };
        let arches = Arch::builtin();
        if !arches.iter().any(|arch| arch.name == profile.arch) {
            let names: Vec<&str> = arches.iter().map(|arch| arch.name.as_str()).collect();
            return Err(self.wrong("arch", &profile.arch.as_str().into(), &names.join(", ")));
        }
        self.check_topology(&mut profile)?;
        self.check_lines(&profile)?;
        Ok(profile)
    }

    /// Drops what the topology leaves no room for; the rest has to be there.
    fn check_topology(&self, profile: &mut Profile) -> Result<(), String> {
        let mut nr_cpus = 1;
        for (nth, field) in FIELDS.iter().enumerate() {
            let count = field.needs.map(|needs| (needs, profile.entry(needs)));
            if let Some((needs, Some(Entry { value: 1, .. }))) = count {
                if self.table.contains_key(field.name) {
                    let allowed = format!("none, for {needs} is 1");
                    return Err(self.wrong(field.name, &self.table[field.name], &allowed));
                }
                profile.entries[nth] = None;
                continue;
            }
            match &profile.entries[nth] {
                Some(entry) if field.unit == Unit::Count => nr_cpus *= entry.value,
                Some(_) => {}
                None => {
                    let range = range(field);
                    let (name, field) = (&self.name, field.name);
                    return Err(format!("machine {name}: {field}: missing (allowed: {range})"));
                }
            }
        }
        if nr_cpus > MAX_CPUS {
            let names: Vec<&str> = FIELDS
                .iter()
                .filter(|field| field.unit == Unit::Count)
                .map(|field| field.name)
                .collect();
            let allowed = format!("1 to {MAX_CPUS}, {}", names.join(" x "));
            return Err(self.wrong("cpus", &(nr_cpus as i64).into(), &allowed));
        }
        Ok(())
    }

    /// Farther is not nearer.
    fn check_lines(&self, profile: &Profile) -> Result<(), String> {
        let mut nearer: Option<(&Field, u64)> = None;
        let lines = FIELDS.iter().zip(&profile.entries);
        for (field, entry) in lines.filter(|(field, _)| field.name.starts_with("line_")) {
            let Some(entry) = entry else { continue };
            match nearer {
                Some((near, least)) if entry.value < least => {
                    let allowed =
                        format!("{least} to {}, not below {}", field.allowed.end(), near.name);
                    return Err(self.wrong(field.name, &(entry.value as i64).into(), &allowed));
                }
                _ => nearer = Some((field, entry.value)),
            }
        }
        Ok(())
    }

    fn entry(&self, field: &Field, given: &Value) -> Result<Entry, String> {
        let Value::Table(table) = given else {
            // A user may leave out what only readers need.
            let source = "the user's".to_owned();
            return Ok(Entry { value: self.number(field, given)?, kind: Kind::Assumed, source });
        };
        if let Some((key, value)) =
            table.iter().find(|(key, _)| !ENTRY_KEYS.contains(&key.as_str()))
        {
            let key = format!("{}.{key}", field.name);
            return Err(self.wrong(&key, value, &format!("only {}", ENTRY_KEYS.join(", "))));
        }
        let get = |key: &str| {
            let missing = || format!("machine {}: {}.{key}: missing", self.name, field.name);
            table.get(key).ok_or_else(missing)
        };
        let (kind, source) = (get("kind")?, get("source")?);
        let may_fit = FITTABLE.contains(&field.name);
        let kinds = Kind::ALL.into_iter().filter(|&kind| may_fit || kind != Kind::Fitted);
        let kind =
            kinds.clone().find(|each| Some(each.name()) == kind.as_str()).ok_or_else(|| {
                let mut names = kinds.map(Kind::name).collect::<Vec<_>>().join(", ");
                if !may_fit {
                    names += &format!("; fitted: {} alone", FITTABLE.join(" and "));
                }
                self.wrong(&format!("{}.kind", field.name), kind, &names)
            })?;
        let source = source.as_str().filter(|text| is_text(text)).ok_or_else(|| {
            self.wrong(&format!("{}.source", field.name), source, "one line of text")
        })?;
        Ok(Entry { value: self.number(field, get("value")?)?, kind, source: source.to_owned() })
    }

    fn number(&self, field: &Field, given: &Value) -> Result<u64, String> {
        let number = match (field.unit, given) {
            (Unit::Flag, Value::Boolean(set)) => Some(u64::from(*set)),
            (Unit::Flag, _) => None,
            (_, Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let allowed = number.filter(|number| field.allowed.contains(number));
        let whole = if given.is_integer() || field.unit == Unit::Flag { "" } else { "whole, " };
        allowed.ok_or_else(|| self.wrong(field.name, given, &format!("{whole}{}", range(field))))
    }

    fn text(&self, key: &str, default: Option<&str>) -> Result<String, String> {
        let allowed = "one line of text";
        match (self.table.get(key), default) {
            (Some(Value::String(text)), _) if is_text(text) => Ok(text.clone()),
            (Some(other), _) => Err(self.wrong(key, other, allowed)),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                Err(format!("machine {}: {key}: missing (allowed: {allowed})", self.name))
            }
        }
    }

    fn wrong(&self, field: &str, value: &Value, allowed: &str) -> String {
        let (name, value) = (&self.name, shown(value));
        format!("machine {name}: {field}: value {value} (allowed: {allowed})")
    }
}

/// What a field may be.
fn range(field: &Field) -> String {
    match field.unit {
        Unit::Flag => "true, false".to_owned(),
        _ => format!("{} to {}", field.allowed.start(), field.allowed.end()),
    }
}

/// One line that says something.
fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= 1000 && !text.chars().any(char::is_control)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 60 => {
            format!("{:?}...", text.chars().take(60).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(set) => set.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(_) => "an array".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/profile.rs"]
mod tests;
