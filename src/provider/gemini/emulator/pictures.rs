//! Pictures: what an image model is answered with besides text, always the same for the same
//! request.
//!
//! Real PNG files, grey and uncompressed, so that the size asked for (`imageConfig.imageSize`) is
//! felt: without one a few bytes, with "1K", "2K" and "4K" 1, 4 and 17 MB. They show noise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A picture with so many pixels on each side, as the JSON text of an `inlineData` member.
pub fn inline_data(side: u32, mark: u64) -> String {
    let data = STANDARD.encode(png(side, mark));
    format!(r#""inlineData":{{"mimeType":"image/png","data":"{data}"}}"#)
}

/// The pixels on each side of a picture of the size asked for; `None` if there is no such size.
pub fn side_of(size: Option<&str>) -> Option<u32> {
    match size {
        None => Some(8),
        Some("1K") => Some(1024),
        Some("2K") => Some(2048),
        Some("4K") => Some(4096),
        Some(_) => None,
    }
}

fn png(side: u32, mark: u64) -> Vec<u8> {
    let mut noise = mark | 1;
    // Each row begins with its filter: none.
    let row_bytes = side as usize + 1;
    let mut pixels = vec![0; side as usize * row_bytes];
    for row in pixels.chunks_exact_mut(row_bytes) {
        for pixel in &mut row[1..] {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *pixel = noise as u8;
        }
    }
    let mut header = Vec::new();
    header.extend_from_slice(&side.to_be_bytes());
    header.extend_from_slice(&side.to_be_bytes());
    // 8 bits, grey, and the only methods there are.
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &stored(&pixels));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend_from_slice(kind);
    file.extend_from_slice(data);
    let sum = crc32(&file[start..]);
    file.extend_from_slice(&sum.to_be_bytes());
}

/// A zlib stream that stores bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        stream.push(u8::from(blocks.peek().is_none()));
        let len = block.len() as u16;
        stream.extend_from_slice(&len.to_le_bytes());
        stream.extend_from_slice(&(!len).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend_from_slice(&adler32(bytes).to_be_bytes());
    stream
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // So many can be added before a sum overflows.
    for some in bytes.chunks(5552) {
        for byte in some {
            a += u32::from(*byte);
            b += a;
        }
        a %= 65_521;
        b %= 65_521;
    }
    b << 16 | a
}

fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut sum = at as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { 0xEDB8_8320 ^ (sum >> 1) } else { sum >> 1 };
                bit += 1;
            }
            table[at] = sum;
            at += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize] ^ (sum >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
    }

    #[test]
    fn a_picture_has_its_size_and_differs_from_others() {
        let file = png(300, 7);
        assert!(file.starts_with(b"\x89PNG\r\n\x1a\n") && file.ends_with(b"IEND\xAE\x42\x60\x82"));
        assert_eq!(&file[16..24], &[0, 0, 1, 44, 0, 0, 1, 44]);
        assert_eq!(file, png(300, 7));
        assert_ne!(file, png(300, 9));
        assert!((90_000..91_000).contains(&file.len()));
    }
}
