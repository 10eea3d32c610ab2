//! Finds the end of a string in a JSON text, and checks the escapes in it.
//!
//! This is where the walk over a text spends its time, so it looks at 64 bytes at once, and takes
//! no step for each escape: text that is escaped from end to end goes as fast as plain text. It
//! does not look for control characters.

use wide::u8x16;

/// Where the string ends whose content begins at `at`: the place of its closing quote. `None` if
/// there is none, or if a backslash begins no escape of JSON.
#[inline]
pub fn closing(text: &[u8], at: usize) -> Option<usize> {
    // Names and words are short.
    let near: &[u8; 16] = match text.get(at..)?.first_chunk() {
        Some(near) => near,
        None => return far(text, at),
    };
    let found = ends_or_escapes(u8x16::new(*near)).to_bitmask();
    if found == 0 {
        return far(text, at);
    }
    let end = at + found.trailing_zeros() as usize;
    if text[end] == b'"' { Some(end) } else { far(text, end) }
}

/// As [`closing`], 64 bytes at a time.
fn far(text: &[u8], mut at: usize) -> Option<usize> {
    if text.len() < Block::BYTES {
        return short(text, at);
    }
    let mut escapes = Escapes::default();
    let mut plain = 0;
    loop {
        let block = Block::at(text, at)?;
        let quotes = block.mask(|lane| is(lane, b'"'));
        let backslashes = block.mask(|lane| is(lane, b'\\'));
        let end = if backslashes == 0 && escapes.none_open() {
            plain += 1;
            quotes
        } else {
            plain = 0;
            escapes.check(&block, quotes, backslashes)?
        };
        if end != 0 {
            return Some(at + end.trailing_zeros() as usize);
        }
        at += Block::BYTES;
        if plain >= FAR_BLOCKS {
            // Pictures have neither for a megabyte.
            at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        }
    }
}

/// As [`closing`], in a text that is shorter than a block.
fn short(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => match text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let digits = text.get(at + 2..at + 6)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then(|| at += 6)?;
                }
                _ => return None,
            },
            _ => at += 1,
        }
    }
}

/// 64 bytes of a text, as masks with one bit a byte.
struct Block {
    lanes: [u8x16; 4],
    /// So many bits at the low end stand before the place that was asked for.
    before: u32,
}

impl Block {
    const BYTES: usize = 64;

    /// The bytes from `at` on; bits beyond the end of the text are 0. `None` at its end, and in a
    /// text that is shorter than a block.
    #[inline]
    fn at(text: &[u8], at: usize) -> Option<Block> {
        // The last block begins before `at`: cheaper than copying it behind zeroes.
        let from = at.min(text.len().checked_sub(Block::BYTES)?);
        let bytes = text.get(from..)?.first_chunk()?;
        (at < text.len()).then(|| Block::of(bytes, (at - from) as u32))
    }

    #[inline]
    fn of(bytes: &[u8; Block::BYTES], before: u32) -> Block {
        let (lanes, _) = bytes.as_chunks();
        let lane = |n: usize| u8x16::new(lanes[n]);
        Block { lanes: [lane(0), lane(1), lane(2), lane(3)], before }
    }

    /// The bytes for which `is` gives 0xff.
    #[inline]
    fn mask(&self, is: impl Fn(u8x16) -> u8x16) -> u64 {
        let bits = |n: usize| u64::from(is(self.lanes[n]).to_bitmask());
        (bits(0) | bits(1) << 16 | bits(2) << 32 | bits(3) << 48) >> self.before
    }
}

/// What is left open by the escapes in one block for the next.
#[derive(Default)]
struct Escapes {
    /// 1 if the next byte is escaped.
    escaped: u64,
    /// The next bytes that have to be hexadecimal digits.
    digits: u64,
}

impl Escapes {
    fn none_open(&self) -> bool {
        self.escaped | self.digits == 0
    }

    /// Checks the escapes up to the end of the string; answers with a mask whose lowest bit is
    /// its closing quote. There is no step for each escape, so it does not matter how many there
    /// are.
    fn check(&mut self, block: &Block, quotes: u64, backslashes: u64) -> Option<u64> {
        let escaped = self.escaped(backslashes);
        let end = quotes & !escaped;
        let inside = end.wrapping_sub(1) & !end;
        // The common ones first: most blocks have no others.
        let mut wrong = escaped & !(quotes | backslashes | block.mask(|lane| is(lane, b'n')));
        let mut digits = self.digits;
        self.digits = 0;
        if wrong != 0 || digits != 0 {
            let unicode = escaped & block.mask(|lane| is(lane, b'u'));
            wrong &= !(unicode | block.mask(is_rarely_escaped));
            digits |= unicode << 1 | unicode << 2 | unicode << 3 | unicode << 4;
            self.digits = unicode >> 63 | unicode >> 62 | unicode >> 61 | unicode >> 60;
            // A quote where a digit has to be is no digit.
            wrong |= digits & !block.mask(is_hexadecimal);
        }
        (wrong & (inside | end & end.wrapping_neg()) == 0).then_some(end)
    }

    /// The bytes that are escaped: those after the first, third, … backslash of each row of them.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let begun = backslashes & !self.escaped;
        // Subtracting makes each row of backslashes run out where it ends; whether that is an odd
        // or an even place tells, compared with where it began, how long it is.
        let after = begun << 1;
        let codes = ((after | ODD).wrapping_sub(begun)) ^ ODD;
        let escaped = codes ^ (begun | self.escaped);
        self.escaped = (codes & begun) >> 63;
        escaped
    }
}

fn is_hexadecimal(lane: u8x16) -> u8x16 {
    let within = |from: u8, last: u8, lane: u8x16| {
        let above = lane - u8x16::splat(from);
        above.min(u8x16::splat(last - from)).simd_eq(above)
    };
    within(b'0', b'9', lane) | within(b'a', b'f', lane | u8x16::splat(0x20))
}

fn is_rarely_escaped(lane: u8x16) -> u8x16 {
    is(lane, b'/') | is(lane, b'b') | is(lane, b'f') | is(lane, b'r') | is(lane, b't')
}

fn ends_or_escapes(lane: u8x16) -> u8x16 {
    is(lane, b'"') | is(lane, b'\\')
}

#[inline]
fn is(lane: u8x16, byte: u8) -> u8x16 {
    lane.simd_eq(u8x16::splat(byte))
}

/// Blocks without an end after which a string is taken for a long one.
const FAR_BLOCKS: u32 = 8;
