//! Writing values, in the form that the oldest peers understand.

/// Appends msgpack values to a buffer.
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer { out }
    }

    pub(crate) fn map(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x80, 0xde)
    }

    pub(crate) fn array(&mut self, len: usize) -> &mut Self {
        self.container(len, 0x90, 0xdc)
    }

    fn container(&mut self, len: usize, fix: u8, wide: u8) -> &mut Self {
        match len {
            0..16 => self.out.push(fix | len as u8),
            16..0x1_0000 => self.head(wide, &(len as u16).to_be_bytes()),
            _ => self.head(wide + 1, &(len as u32).to_be_bytes()),
        }
        self
    }

    /// Text, bytes or a key: all are "raw".
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        match bytes.len() {
            len @ 0..32 => self.out.push(0xa0 | len as u8),
            len @ 32..0x1_0000 => self.head(0xda, &(len as u16).to_be_bytes()),
            len => self.head(0xdb, &(len as u32).to_be_bytes()),
        }
        self.out.extend_from_slice(bytes);
        self
    }

    pub(crate) fn nil(&mut self) -> &mut Self {
        self.out.push(0xc0);
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    pub(crate) fn uint(&mut self, value: impl Into<u64>) -> &mut Self {
        match value.into() {
            value @ 0..0x80 => self.out.push(value as u8),
            value @ 0x80..0x100 => self.head(0xcc, &[value as u8]),
            value @ 0x100..0x1_0000 => self.head(0xcd, &(value as u16).to_be_bytes()),
            value @ 0x1_0000..0x1_0000_0000 => self.head(0xce, &(value as u32).to_be_bytes()),
            value => self.head(0xcf, &value.to_be_bytes()),
        }
        self
    }

    /// A signed integer; the non-negative ones look as unsigned ones do, which both generations read.
    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        match value {
            0.. => {
                self.uint(value.unsigned_abs());
            }
            -32..0 => self.out.push(value as u8),
            -0x80..-32 => self.head(0xd0, &[value as u8]),
            -0x8000..-0x80 => self.head(0xd1, &(value as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.head(0xd2, &(value as i32).to_be_bytes()),
            _ => self.head(0xd3, &value.to_be_bytes()),
        }
        self
    }

    /// A number with seven digits, in half the room of all its digits: more than any measurement has. One that is too
    /// large for that has all.
    pub(crate) fn float(&mut self, value: f64) -> &mut Self {
        let short = value as f32;
        if short.is_finite() {
            self.head(0xca, &short.to_be_bytes());
        } else {
            self.head(0xcb, &value.to_be_bytes());
        }
        self
    }

    fn head(&mut self, code: u8, bytes: &[u8]) {
        self.out.push(code);
        self.out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl for<'w, 'o> FnOnce(&'w mut Writer<'o>) -> &'w mut Writer<'o>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn numbers_texts_and_containers_are_written_in_their_shortest_old_form() {
        for (value, bytes) in [
            (0u64, &b"\0"[..]),
            (127, b"\x7f"),
            (128, b"\xcc\x80"),
            (255, b"\xcc\xff"),
            (256, b"\xcd\x01\0"),
            (65535, b"\xcd\xff\xff"),
            (65536, b"\xce\0\x01\0\0"),
            (0xffff_ffff, b"\xce\xff\xff\xff\xff"),
            (0x1_0000_0000, b"\xcf\0\0\0\x01\0\0\0\0"),
        ] {
            assert_eq!(written(|writer| writer.uint(value)), bytes);
            assert_eq!(written(|writer| writer.int(value as i64)), bytes);
        }
        for (value, bytes) in [
            (-1i64, &b"\xff"[..]),
            (-32, b"\xe0"),
            (-33, b"\xd0\xdf"),
            (-128, b"\xd0\x80"),
            (-129, b"\xd1\xff\x7f"),
            (-32769, b"\xd2\xff\xff\x7f\xff"),
            (i64::MIN, b"\xd3\x80\0\0\0\0\0\0\0"),
        ] {
            assert_eq!(written(|writer| writer.int(value)), bytes);
        }
        for (len, head) in [
            (0, &b"\xa0"[..]),
            (31, b"\xbf"),
            (32, b"\xda\0\x20"),
            (255, b"\xda\0\xff"),
            (65535, b"\xda\xff\xff"),
            (65536, b"\xdb\0\x01\0\0"),
        ] {
            let bytes = written(|writer| writer.raw(vec![7; len]));
            assert_eq!((&bytes[..head.len()], bytes.len()), (head, head.len() + len));
        }
        for (len, map, array) in [
            (15, &b"\x8f"[..], &b"\x9f"[..]),
            (16, b"\xde\0\x10", b"\xdc\0\x10"),
            (65536, b"\xdf\0\x01\0\0", b"\xdd\0\x01\0\0"),
        ] {
            assert_eq!(written(|writer| writer.map(len)), map);
            assert_eq!(written(|writer| writer.array(len)), array);
        }
    }
}
