//! The event log of Windows: the log's lines appear there under "Application", with the source [`SOURCE`].

use winsafe::guard::DeregisterEventSourceGuard;
use winsafe::{HEVENTLOG, HKEY, RegistryValue, SysResult, co};

use super::logging::{self, Level, Sink};

/// The source of our entries.
pub const SOURCE: &str = "Fyrd";

/// Where the system looks for what it should know of a source.
const SOURCES: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";

/// Gives an entry its form; each of its messages is just the text. It comes with every Windows.
const MESSAGES: &str = r"%SystemRoot%\System32\EventCreate.exe";

/// Characters that the system takes in one text.
const TEXT_MAX: usize = 31_000;

/// Tells the system of the source; without that, entries are shown with a remark that nobody describes them.
/// Only administrators can. The error is the system's reason.
pub fn register() -> Result<(), String> {
    let key = format!("{SOURCES}\\{SOURCE}");
    let values = [
        ("EventMessageFile", RegistryValue::ExpandSz(MESSAGES.to_string())),
        // Errors, warnings and information.
        ("TypesSupported", RegistryValue::Dword(7)),
    ];
    for (name, value) in values {
        let set = HKEY::LOCAL_MACHINE.RegSetKeyValue(Some(&key), Some(name), value);
        set.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Takes that back. The error is the system's reason.
pub fn deregister() -> Result<(), String> {
    let deleted = HKEY::LOCAL_MACHINE.RegDeleteKey(&format!("{SOURCES}\\{SOURCE}"));
    deleted.map_err(|e| e.to_string())
}

/// Writes one entry, at once. The error is the system's reason.
pub fn report(level: Level, text: &str) -> Result<(), String> {
    let write = || write(&*open()?, level, text);
    write().map_err(|e| e.to_string())
}

/// Opens the log for the lines of the agent's.
pub fn connect() -> Result<Sink, String> {
    let log = open().map_err(|e| e.to_string())?;
    logging::sink(move |line| {
        // There is nowhere to say that this failed.
        let _ = write(&log, line.level, line.message().trim_end());
    })
}

fn open() -> SysResult<DeregisterEventSourceGuard> {
    HEVENTLOG::RegisterEventSource(None, SOURCE)
}

fn write(log: &HEVENTLOG, level: Level, text: &str) -> SysResult<()> {
    let (kind, id) = match level {
        Level::Err => (co::EVENTLOG::ERROR_TYPE, 1),
        Level::Warn => (co::EVENTLOG::WARNING_TYPE, 2),
        Level::Info => (co::EVENTLOG::INFORMATION_TYPE, 3),
        Level::Debug => (co::EVENTLOG::INFORMATION_TYPE, 4),
        Level::Trace => (co::EVENTLOG::INFORMATION_TYPE, 5),
    };
    // A zero would end the text.
    let text: String = text.chars().filter(|c| *c != '\0').take(TEXT_MAX).collect();
    log.ReportEvent(kind, 0, id, None, &[text], &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_registered_used_and_taken_back() {
        register().unwrap();
        let key = format!("{SOURCES}\\{SOURCE}");
        let file = HKEY::LOCAL_MACHINE.RegGetValue(
            Some(&key),
            Some("EventMessageFile"),
            co::RRF::RT_ANY | co::RRF::NOEXPAND,
        );
        assert!(format!("{:?}", file.unwrap()).contains("EventCreate.exe"));
        report(Level::Warn, "a test of Fyrd's").unwrap();
        deregister().unwrap();
        assert!(deregister().is_err(), "it is gone");
    }
}
