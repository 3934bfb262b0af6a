//! Access lists of Windows for files that hold keys.

use std::io;
use std::path::Path;

use windows_permissions::constants::{SeObjectType, SecurityInformation};
use windows_permissions::{LocalBox, SecurityDescriptor, utilities, wrappers};

/// Gives access to a file to the user of this process and to the system, which is to Windows what root is to
/// Unix, and to nobody else, whatever the directory grants.
pub fn owner_only(file: &Path) -> io::Result<()> {
    let user = utilities::current_process_sid()?;
    apply(file, &format!("D:P(A;;FA;;;SY)(A;;FA;;;{user})"))
}

/// Makes a directory the administrators', and lets nobody else but the system write or read in it. For
/// configuration of a service: it can hold keys, and names what the service runs.
pub fn administrators_only(directory: &Path) -> io::Result<()> {
    apply(directory, "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)")
}

/// Whether a file or directory belongs to administrators, the system, or the user of this process.
pub fn is_trusted(path: &Path) -> io::Result<bool> {
    const ADMINISTRATORS: &str = "S-1-5-32-544";
    const SYSTEM: &str = "S-1-5-18";
    let found = wrappers::GetNamedSecurityInfo(
        path.as_os_str(),
        SeObjectType::SE_FILE_OBJECT,
        SecurityInformation::Owner,
    )?;
    let user = utilities::current_process_sid()?.to_string();
    let owner = found.owner().map(ToString::to_string);
    Ok(owner.is_some_and(|owner| [ADMINISTRATORS, SYSTEM, &user].contains(&owner.as_str())))
}

/// Replaces the access list, and cuts it off from that of the directory.
fn apply(path: &Path, list: &str) -> io::Result<()> {
    let descriptor: LocalBox<SecurityDescriptor> = list.parse()?;
    wrappers::SetNamedSecurityInfo(
        path.as_os_str(),
        SeObjectType::SE_FILE_OBJECT,
        SecurityInformation::Dacl | SecurityInformation::ProtectedDacl,
        None,
        None,
        descriptor.dacl(),
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only there the whole of another system is a drive.
    fn is_wine() -> bool {
        Path::new(r"Z:\proc\self").exists()
    }

    #[test]
    fn the_list_of_a_file_is_replaced() {
        let directory = tempfile::Builder::new().prefix("a b ").tempdir().unwrap();
        let file = directory.path().join("keyring file.json");
        std::fs::write(&file, "x").unwrap();
        let user = utilities::current_process_sid().unwrap().to_string();
        let list = || {
            let found = wrappers::GetNamedSecurityInfo(
                file.as_os_str(),
                SeObjectType::SE_FILE_OBJECT,
                SecurityInformation::Dacl,
            );
            found.unwrap().as_sddl().unwrap().to_string_lossy().into_owned()
        };
        owner_only(&file).unwrap();
        // wine has modes for lists, and keeps no more than the owner's part.
        let (list, user) = (list(), format!("(A;;FA;;;{user})"));
        assert!(
            list == format!("D:P(A;;FA;;;SY){user}") || (is_wine() && list.contains(&user)),
            "{list}"
        );
        std::fs::write(&file, "y").unwrap();
        assert!(is_trusted(&file).unwrap());
        let missing = owner_only(&directory.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
