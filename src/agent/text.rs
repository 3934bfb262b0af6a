//! Text files as editors leave them.

/// What some editors of Windows put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The text of a file, without the mark in front. What Windows PowerShell writes by default is UTF-16, and
/// refused with a reason that says so.
pub fn of_file(content: &[u8]) -> Result<&[u8], String> {
    if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16, it must be UTF-8".to_string());
    }
    Ok(content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_off_and_utf_16_is_told() {
        assert_eq!(of_file(b"{}"), Ok(&b"{}"[..]));
        assert_eq!(of_file("\u{feff}{}\r\n".as_bytes()), Ok(&b"{}\r\n"[..]));
        assert_eq!(of_file(b""), Ok(&b""[..]));
        assert!(of_file(&[0xff, 0xfe, b'{', 0]).is_err());
        assert!(of_file(&[0xfe, 0xff, 0, b'{']).is_err());
    }
}
